"""The period of the tests' tiles."""

from datetime import date

YEAR = {"period": "2021", "period_start": date(2021, 1, 1), "period_end": date(2021, 12, 31)}
SUMMER = date(2021, 7, 15)
