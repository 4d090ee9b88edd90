"""PostgreSQL's planner statistics for tables that were just filled.

Autovacuum runs once a minute. Until then queries on a table that got a hundred thousand rows are planned as if it were
nearly empty, and a join that takes seconds by its index takes minutes without it.
"""

from django.db import connection
from django.db.models import Model

MANY = 1_000


def renew_statistics(rows: int, *models: type[Model]) -> None:
    """Update tables' statistics, if many rows were written at once; in the caller's transaction, if any."""
    if rows < MANY:
        return
    # In a fixed order, so that two transactions that do this cannot deadlock.
    tables = sorted(model._meta.db_table for model in models)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE " + ", ".join(map(connection.ops.quote_name, tables)))
