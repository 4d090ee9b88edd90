"""Asking for work."""

import sys
import threading
import types
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from thawloop.core.context import acting
from thawloop.core.errors import Conflict, Refused
from thawloop.core.jobs import cancel_job, dispatch, enqueue, queue, reconcile_jobs, retry_job
from thawloop.core.jobs import job as job_declared
from thawloop.core.models import AuditEntry, Job

FUNCTION, ON_GPU = "core_test_jobs.nothing", "core_test_jobs.on_gpu"


@pytest.fixture(autouse=True)
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that may be asked for."""
    module = types.ModuleType("core_test_jobs")
    module.nothing = job_declared()(lambda job: None)
    module.on_gpu = job_declared(queue="gpu", max_attempts=5)(lambda job: None)
    module.plain = lambda job: None
    monkeypatch.setitem(sys.modules, "core_test_jobs", module)


@pytest.mark.django_db
def test_a_second_job_with_the_same_key_is_the_first_one() -> None:
    first = enqueue(FUNCTION, key="predict:1", args={"tiles": 3})
    assert enqueue(FUNCTION, key="predict:1", args={"tiles": 9}) == first
    assert enqueue(FUNCTION, key="predict:2") != first
    assert Job.objects.count() == 2


@pytest.mark.django_db
def test_the_database_refuses_two_active_jobs_with_one_key() -> None:
    Job.objects.create(function=FUNCTION, key="k")
    Job.objects.create(function=FUNCTION, key="k", state=Job.State.SUCCEEDED)
    with pytest.raises(IntegrityError, match="job_one_active_per_key"), transaction.atomic():
        Job.objects.create(function=FUNCTION, key="k")


@pytest.mark.django_db(transaction=True)
def test_threads_that_ask_at_once_get_one_job() -> None:
    found, start = [], threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append(enqueue(FUNCTION, key="same").pk)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_workers_are_notified_of_a_job_when_its_transaction_commits(live_redis) -> None:
    with transaction.atomic():
        job = enqueue(ON_GPU, key="k")
        assert queue.waiting("gpu") == set()
    assert queue.waiting("gpu") == {f"{job.pk}-1-1"}
    job.refresh_from_db()
    assert (job.dispatches, job.dispatched is not None) == (1, True)


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_transaction_is_rolled_back_never_was(live_redis) -> None:
    def ask_and_fail() -> None:
        with transaction.atomic():
            enqueue(FUNCTION, key="k")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask_and_fail()
    assert queue.waiting("default") == set()
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_only_the_id_and_the_attempt_are_in_redis(live_redis) -> None:
    job = enqueue(FUNCTION, key="k", args={"secret": "do not show"})
    stored = live_redis.hgetall(f"rq:job:{job.pk}-1-1")
    assert b"do not show" not in b"".join(stored.values())
    assert str(job.pk).encode() in stored[b"description"]


@pytest.mark.django_db(transaction=True)
def test_without_redis_the_row_waits_for_the_reconciler(settings, live_redis) -> None:
    there, settings.REDIS_URL = settings.REDIS_URL, "redis://127.0.0.1:1/0"
    job = enqueue(FUNCTION, key="k")
    assert "Redis does not answer" in reconcile_jobs()[0]
    job.refresh_from_db()
    assert (job.state, job.dispatched) == (Job.State.QUEUED, None)
    settings.REDIS_URL = there
    reconcile_jobs()
    assert len(queue.waiting("default")) == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_processes_that_notify_of_the_same_row_one_does(live_redis) -> None:
    job = Job.objects.create(function=FUNCTION, key="k")
    assert [dispatch(job.pk, 1, 0), dispatch(job.pk, 1, 0)] == [True, False]
    assert len(queue.waiting("default")) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "function", ["os.system", "thawloop", "thawloop.core;x", "nowhere.x", "core_test_jobs.plain", "core_test_jobs.none"]
)
def test_only_functions_declared_as_jobs_can_be_jobs(function: str) -> None:
    with pytest.raises(Refused, match="cannot run as a job"):
        enqueue(function, key="k")
    assert not Job.objects.exists()


@pytest.mark.django_db
def test_a_row_has_the_queue_and_the_attempts_that_its_function_declares() -> None:
    rows = [enqueue(FUNCTION, key="a"), enqueue(ON_GPU, key="b")]
    assert [(row.queue, row.max_attempts) for row in rows] == [("default", 3), ("gpu", 5)]


@pytest.mark.parametrize("declaration", [{"queue": "fast"}, {"max_attempts": 0}])
def test_a_declaration_that_cannot_be_is_an_error_at_once(declaration: dict) -> None:
    with pytest.raises(ValueError, match="default, raster, gpu, and at least one attempt"):
        job_declared(**declaration)


@pytest.mark.django_db
def test_a_job_knows_who_asked_and_in_which_request() -> None:
    user = User.objects.create_user("ada")
    with acting(user=user, request_id="r-1"):
        job = enqueue(FUNCTION, key="k")
    assert (job.requested_by, job.request_id) == (user, "r-1")


@pytest.mark.django_db
def test_a_queued_job_is_cancelled_at_once_and_audited() -> None:
    with acting(name="ada"):
        job = cancel_job(enqueue(FUNCTION, key="k"), reason="not needed")
    assert job.state == Job.State.CANCELLED
    assert job.finished is not None
    assert "ada" in job.error
    entry = AuditEntry.objects.get(action="core.cancel_job")
    assert (entry.actor_name, entry.object_id, entry.reason) == ("ada", str(job.pk), "not needed")
    assert (entry.before["state"], entry.after["state"]) == ("queued", "cancelled")
    with pytest.raises(Conflict, match="has cancelled already"):
        cancel_job(job)


@pytest.mark.django_db
def test_retrying_makes_a_new_job_and_keeps_the_old_one() -> None:
    old = cancel_job(enqueue(ON_GPU, key="k", args={"a": 1}))
    new = retry_job(old, reason="the disk has room again")
    assert new.pk != old.pk
    (told,) = AuditEntry.objects.filter(action="core.retry_job")
    assert (told.object_id, told.before["job"], told.reason) == (str(new.pk), str(old.pk), "the disk has room again")
    assert (new.function, new.key, new.queue, new.args, new.max_attempts) == (ON_GPU, "k", "gpu", {"a": 1}, 5)
    old.refresh_from_db()
    assert old.state == Job.State.CANCELLED
    with pytest.raises(Conflict, match="doing the same work"):
        retry_job(old)
    with pytest.raises(Conflict, match="only a failed or cancelled job"):
        retry_job(new)


@pytest.mark.django_db
def test_a_clean_up_runs_when_a_queued_job_is_cancelled(job_of: Callable[..., Job]) -> None:
    cleaned = []

    def work(job) -> None: ...

    job = cancel_job(job_of(work, on_failed=lambda row, error: cleaned.append((row.pk, row.state, error))))
    assert cleaned == [(job.pk, "cancelled", job.error)]


@pytest.mark.django_db(transaction=True)
def test_a_lost_notification_is_repeated_under_a_new_id_once_the_grace_is_over(live_redis) -> None:
    job = enqueue(FUNCTION, key="k")
    live_redis.delete("rq:queue:default")  # as when a worker took it and died before it claimed the row
    assert reconcile_jobs() == []
    Job.objects.update(dispatched=Now() - timedelta(hours=1))
    assert "notified workers again (time 2)" in reconcile_jobs()[0]
    assert queue.waiting("default") == {f"{job.pk}-1-2"}


@pytest.mark.django_db(transaction=True)
def test_a_job_that_waits_behind_others_is_not_notified_of_again(live_redis) -> None:
    job = enqueue(FUNCTION, key="k")
    Job.objects.update(dispatched=Now() - timedelta(hours=1))
    assert reconcile_jobs() == []
    assert queue.waiting("default") == {f"{job.pk}-1-1"}


@pytest.mark.django_db(transaction=True)
def test_workers_are_notified_of_a_failed_job_when_its_pause_is_over(live_redis) -> None:
    job = Job.objects.create(function=FUNCTION, key="k", attempt=2, not_before=Now() + timedelta(hours=1))
    reconcile_jobs()
    assert queue.waiting("default") == set()
    Job.objects.update(not_before=Now())
    reconcile_jobs()
    assert queue.waiting("default") == {f"{job.pk}-2-1"}
