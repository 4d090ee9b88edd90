"""History cannot be rewritten, not even with SQL."""

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction

from thawloop.core.context import acting
from thawloop.core.models import AuditEntry
from thawloop.core.services import audit

pytestmark = pytest.mark.django_db


@pytest.fixture
def entry() -> AuditEntry:
    return audit("core.test", User.objects.create_user("ada"), after={"x": 1})


def test_an_audit_entry_cannot_be_changed(entry: AuditEntry) -> None:
    with pytest.raises(DatabaseError, match="append-only: UPDATE refused"), transaction.atomic():
        AuditEntry.objects.filter(pk=entry.pk).update(reason="better not")


def test_an_audit_entry_cannot_be_deleted(entry: AuditEntry) -> None:
    with pytest.raises(DatabaseError, match="append-only: DELETE refused"), transaction.atomic():
        entry.delete()


HISTORY = ["core_auditentry", "labeling_annotation", "labeling_labelrevision", "registry_promotion"]


@pytest.mark.parametrize("table", HISTORY)
def test_every_table_of_history_has_its_trigger(table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgtype & 2 > 0 AND tgtype & 8 > 0 AND tgtype & 16 > 0 AND tgenabled = 'O' FROM pg_trigger"
            " WHERE tgrelid = %s::regclass AND tgname = 'append_only'",
            [table],
        )
        assert cursor.fetchone() == (True,)  # before, on delete, on update, enabled


@pytest.mark.parametrize("statement", ["TRUNCATE {}", "TRUNCATE {} CASCADE"])
@pytest.mark.parametrize("table", HISTORY)
def test_a_table_of_history_cannot_be_emptied(table: str, statement: str) -> None:
    with pytest.raises(DatabaseError, match="TRUNCATE"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement.format(table))


def test_history_is_not_emptied_with_a_table_that_it_points_to() -> None:
    with (
        pytest.raises(DatabaseError, match="append-only: TRUNCATE refused"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("TRUNCATE labeling_label CASCADE")


def test_an_entry_says_who_what_and_in_which_request() -> None:
    user = User.objects.create_user("ada")
    with acting(user=user, request_id="r-1"):
        entry = audit("core.test", user, before={"when": user.date_joined}, after={"x": 2}, reason="because")
    entry.refresh_from_db()
    assert (entry.actor, entry.actor_name, entry.request_id) == (user, "ada", "r-1")
    assert (entry.object_type, entry.object_id, entry.object_name) == ("auth.user", str(user.pk), "ada")
    assert entry.before["when"].startswith(str(user.date_joined.year))


def test_a_process_acts_under_its_name() -> None:
    with acting(name="reconciler"):
        entry = audit("core.test", User.objects.create_user("ada"))
    assert (entry.actor, entry.actor_name) == (None, "reconciler")
