"""Tables that were just filled are planned for as what they are."""

import pytest
from django.contrib.auth.models import Group
from django.db import connection

from thawloop.core.planner import renew_statistics

pytestmark = pytest.mark.django_db


def estimated_rows() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples::bigint FROM pg_class WHERE relname = 'auth_group'")
        return int(cursor.fetchone()[0])


def test_statistics_are_renewed_after_many_rows_only() -> None:
    before = estimated_rows()
    Group.objects.bulk_create(Group(name=f"g{number}") for number in range(2_000))
    renew_statistics(999, Group)
    assert estimated_rows() == before
    renew_statistics(2_000, Group)
    assert estimated_rows() > 1_900


@pytest.mark.parametrize(("setting", "value"), [("cursor_tuple_fraction", "1"), ("jit", "off")])
def test_connections_plan_for_all_rows_and_compile_nothing(setting: str, value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s)", [setting])
        assert cursor.fetchone() == (value,)
