"""Running jobs, in this process."""

import math
import threading
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from thawloop.core.context import acting, current_actor
from thawloop.core.errors import Conflict, Refused, Unavailable
from thawloop.core.jobs import JobContext, JobPostponed, cancel_job, execute, reconcile_jobs, run_inline, wait_for
from thawloop.core.jobs.lease import claim_job as claim
from thawloop.core.jobs.lease import renew, succeed
from thawloop.core.models import AuditEntry, Job
from thawloop.core.services import audit

JobOf = Callable[..., Job]


@pytest.mark.django_db
def test_a_job_gets_its_arguments_and_leaves_its_result(job_of: JobOf) -> None:
    def double(job: JobContext) -> dict:
        return {"twice": job.args["n"] * 2, "when": timezone.now(), "score": math.nan}

    job = run_inline(job_of(double, args={"n": 21}).pk)
    assert job.state == Job.State.SUCCEEDED
    assert job.result["twice"] == 42
    assert job.result["score"] is None
    assert (job.progress, job.error, job.lease_token) == (1, "", None)
    assert job.started <= job.finished


@pytest.mark.django_db
def test_a_refusal_fails_the_job_with_its_sentence_and_is_not_tried_again(job_of: JobOf) -> None:
    def refuse(job: JobContext) -> None:
        raise Refused("Band 7 is missing in a.tif: give --band-indexes.")

    job = run_inline(job_of(refuse).pk)
    assert (job.state, job.attempt) == (Job.State.FAILED, 1)
    assert job.error == "Band 7 is missing in a.tif: give --band-indexes."


@pytest.mark.django_db
def test_an_error_is_tried_again_later_and_then_given_up(job_of: JobOf) -> None:
    def stumble(job: JobContext) -> None:
        raise ValueError("the network went away\nwith details")

    job = run_inline(job_of(stumble, max_attempts=2).pk)
    assert (job.state, job.attempt) == (Job.State.QUEUED, 2)
    assert job.not_before > timezone.now()
    assert "attempt 1 of 2 with ValueError: the network went away; it is tried again" in job.error
    job = run_inline(job.pk)
    assert (job.state, job.attempt) == (Job.State.FAILED, 2)
    assert str(job.pk) in job.error
    assert "with details" not in job.error


@pytest.mark.django_db
def test_a_database_error_in_a_job_does_not_spoil_the_record(job_of: JobOf) -> None:
    def break_sql(job: JobContext) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")

    assert "division by zero" in run_inline(job_of(break_sql, max_attempts=1).pk).error


@pytest.mark.django_db
def test_a_result_that_json_cannot_hold_fails_the_job(job_of: JobOf) -> None:
    def strange(job: JobContext) -> dict:
        return {"thing": object()}

    assert "TypeError" in run_inline(job_of(strange, max_attempts=1).pk).error


@pytest.mark.django_db
def test_a_function_that_is_gone_fails_the_job(job_of: JobOf) -> None:
    job = Job.objects.create(function="thawloop.core.nowhere", key="k", max_attempts=1)
    job = run_inline(job.pk)
    assert (job.state, "cannot run as a job" in job.error, "clean-up" in job.error) == (Job.State.FAILED, True, False)


@pytest.mark.django_db
def test_clean_up_is_called_once_at_the_final_failure(job_of: JobOf) -> None:
    cleaned = []

    def stumble(job: JobContext) -> None:
        raise ValueError("no")

    declared = {"max_attempts": 2, "on_failed": lambda row, error: cleaned.append(row.attempt)}
    job = run_inline(job_of(stumble, **declared).pk)
    assert cleaned == []
    run_inline(job.pk)
    assert cleaned == [2]


@pytest.mark.django_db
def test_a_clean_up_that_fails_is_undone_and_mentioned_but_the_failure_stands(job_of: JobOf) -> None:
    def refuse(job: JobContext) -> None:
        raise Refused("No.")

    def clean_up(row: Job, error: str) -> None:
        User.objects.create_user("half-done")
        raise RuntimeError("clean-up broke")

    job = run_inline(job_of(refuse, on_failed=clean_up).pk)
    assert job.state == Job.State.FAILED
    assert job.error.startswith("No.")
    assert "clean-up broke" in job.error
    assert not User.objects.filter(username="half-done").exists()


@pytest.mark.django_db
def test_what_a_job_does_is_done_by_who_asked_for_it(job_of: JobOf) -> None:
    def change(job: JobContext) -> None:
        audit("core.test", job.job)
        assert current_actor().request_id == "r-7"

    with acting(user=User.objects.create_user("ada"), request_id="r-7"):
        job = job_of(change)
    assert run_inline(job.pk).state == Job.State.SUCCEEDED
    entry = AuditEntry.objects.get(action="core.test")
    assert (entry.actor_name, entry.request_id, entry.job_id) == ("ada", "r-7", job.pk)


@pytest.mark.django_db
def test_a_job_that_is_not_queued_cannot_be_run_inline(job_of: JobOf) -> None:
    def work(job: JobContext) -> None: ...

    job = run_inline(job_of(work).pk)
    with pytest.raises(Conflict, match="is succeeded"):
        run_inline(job.pk)


@pytest.mark.django_db(transaction=True)
def test_progress_is_seen_by_others_while_the_job_holds_a_transaction(job_of: JobOf, settings) -> None:
    settings.THAWLOOP_JOB_HEARTBEAT_SECONDS = 0.1
    seen = threading.Event()

    def work(job: JobContext) -> None:
        from django.db import transaction

        with transaction.atomic():
            User.objects.create_user("in-transaction")
            job.progress(0.4, "half way")
            assert seen.wait(20)

    def watch() -> None:
        def look(row: Job) -> None:
            if (row.progress, row.progress_message) == (0.4, "half way"):
                seen.set()

        wait_for(job, timeout=30, on_progress=look)
        connection.close()

    job = job_of(work)
    watcher = threading.Thread(target=watch)
    watcher.start()
    run_inline(job.pk)
    watcher.join()
    assert seen.is_set()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("polite", [True, False], ids=["checks", "asks and returns"])
def test_a_running_job_hears_that_it_was_cancelled(job_of: JobOf, settings, polite: bool) -> None:
    settings.THAWLOOP_JOB_HEARTBEAT_SECONDS = 0.1
    cleaned = []

    def work(job: JobContext) -> dict:
        cancel_job(job.job)
        while not job.should_stop():
            pass
        if polite:
            job.check_cancelled()
        return {"epochs": 3}

    job = run_inline(job_of(work, on_failed=lambda row, error: cleaned.append(row.state)).pk)
    assert (job.state, job.result) == (Job.State.CANCELLED, None)
    assert cleaned == ["cancelled"]


@pytest.mark.django_db(transaction=True)
def test_a_job_that_lost_its_lease_hears_it_and_its_result_is_dropped(job_of: JobOf, settings) -> None:
    settings.THAWLOOP_JOB_HEARTBEAT_SECONDS = 0.1

    def work(job: JobContext) -> dict:
        Job.objects.filter(pk=job.job.pk).update(lease_token=uuid4())  # as if another attempt had taken over
        while not job.should_stop():
            pass
        return {"by": "the fenced one"}

    job = run_inline(job_of(work).pk)
    assert (job.state, job.result) == (Job.State.RUNNING, None)


@pytest.mark.django_db(transaction=True)
def test_a_heartbeat_survives_the_loss_of_its_connection(job_of: JobOf, settings) -> None:
    settings.THAWLOOP_JOB_HEARTBEAT_SECONDS = 0.1

    def lease_of(job: Job):
        return Job.objects.values_list("lease_until", flat=True).get(pk=job.pk)

    def work(job: JobContext) -> dict:
        first = lease_of(job.job)
        with connection.cursor() as cursor:  # every other connection of this database, the heartbeat's among them
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        while lease_of(job.job) <= first + timedelta(seconds=1):
            pass
        return {"alive": True}

    assert run_inline(job_of(work).pk).result == {"alive": True}


@pytest.mark.django_db(transaction=True)
def test_a_result_is_written_though_the_connection_broke_meanwhile(job_of: JobOf) -> None:
    def work(job: JobContext) -> dict:
        own = connection.connection.info.backend_pid

        def kill() -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s)", [own])
            connection.close()

        killer = threading.Thread(target=kill)
        killer.start()
        killer.join()
        return {"hours of work": True}

    assert run_inline(job_of(work).pk).result == {"hours of work": True}


@pytest.mark.django_db
def test_a_stale_delivery_is_not_run(job_of: JobOf) -> None:
    def never(job: JobContext) -> None:
        raise AssertionError("ran")

    job = job_of(never)
    assert execute(str(job.pk), 2) == "stale delivery"
    cancel_job(job)
    assert execute(str(job.pk), 1) == "stale delivery"


@pytest.mark.django_db
def test_only_the_holder_of_the_lease_can_write(job_of: JobOf) -> None:
    def work(job: JobContext) -> None: ...

    job = job_of(work)
    first = claim(job.pk, 1)
    assert claim(job.pk, 1) is None
    Job.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))
    assert "queued again" in reconcile_jobs()[0]
    second = claim(job.pk, 2)
    assert renew(first, 0.9, "late") is None
    assert succeed(first, {"by": "first"}) is False
    assert renew(second, 0.5, "") is False
    assert succeed(second, {"by": "second"}) is True
    job.refresh_from_db()
    assert job.result == {"by": "second"}


@pytest.mark.django_db
def test_a_job_whose_workers_keep_dying_is_given_up(job_of: JobOf) -> None:
    cleaned = []

    def work(job: JobContext) -> None: ...

    job = job_of(work, max_attempts=2, on_failed=lambda row, error: cleaned.append(error))
    for attempt in (1, 2):
        assert claim(job.pk, attempt)
        Job.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))
        reconcile_jobs()
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "lease expired on attempt 2 of 2" in job.error
    assert cleaned == [job.error]


@pytest.mark.django_db
def test_a_cancelled_job_whose_worker_died_is_cancelled_not_repeated(job_of: JobOf) -> None:
    def work(job: JobContext) -> None: ...

    job = job_of(work)
    claim(job.pk, 1)
    cancel_job(job)
    Job.objects.filter(pk=job.pk).update(lease_until=Now() - timedelta(seconds=1))
    reconcile_jobs()
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED


@pytest.mark.django_db
def test_waiting_ends_with_a_sentence_when_it_takes_too_long(job_of: JobOf) -> None:
    def work(job: JobContext) -> None: ...

    with pytest.raises(Unavailable, match="still queued after 0 s"):
        wait_for(job_of(work), timeout=0)


@pytest.mark.django_db
def test_a_job_that_must_wait_for_another_goes_back_without_losing_an_attempt(job_of) -> None:
    ready: list[bool] = []

    def impatient(job: JobContext) -> dict:
        if not ready:
            raise JobPostponed("Waiting for the other one.")
        return {"attempt": job.job.attempt}

    job = run_inline(job_of(impatient).pk)
    assert (job.state, job.attempt, job.error) == ("queued", 1, "Waiting for the other one.")
    assert job.not_before is not None
    ready.append(True)
    job = run_inline(job.pk)
    assert (job.state, job.result, job.error) == ("succeeded", {"attempt": 1}, "")
