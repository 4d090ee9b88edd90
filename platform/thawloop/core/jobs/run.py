"""One attempt of one job, from claim to the fenced final UPDATE."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction

from thawloop.core.context import acting
from thawloop.core.errors import Conflict, Refused
from thawloop.core.jobs.context import JobCancelled, JobContext, JobPostponed, replace_broken_connection
from thawloop.core.jobs.function import job_function
from thawloop.core.jobs.lease import Claim, Lease, Stop, claim_job, release, succeed
from thawloop.core.jobs.rows import give_up
from thawloop.core.jsonable import jsonable
from thawloop.core.models import Job

log = structlog.get_logger(__name__)

FENCED = "fenced: another attempt has taken over"
WRITE_TIMEOUT_SECONDS = 600.0
RETRY_WAIT_SECONDS = 5.0  # doubled with every attempt
LONGEST_RETRY_WAIT_SECONDS = 300.0
POSTPONED_SECONDS = 10.0

OnProgress: TypeAlias = Callable[[float, str], None] | None


def execute(job_id: str, attempt: int) -> str:
    """Run one attempt of a job in a worker's own process; this is all that RQ ever calls.

    Returns:
        What became of it, for RQ's log. Nothing is raised for a job that fails: its row says so.
    """
    claim = claim_job(UUID(job_id), attempt)
    if claim is None:
        return "stale delivery"
    lease = Lease(claim, on_lost=_kill_this_process)
    # The worker passes a shutdown on to its work horse: stop at the next check, continue elsewhere.
    before = signal.signal(signal.SIGTERM, lambda *_: lease.interrupt())
    try:
        return _attempt(claim, lease)
    finally:
        signal.signal(signal.SIGTERM, before)


def run_inline(job_id: UUID | str, on_progress: OnProgress = None) -> Job:
    """Run one queued job in this process, whether or not there are workers.

    Inside a transaction (as in most tests) nobody else can see the row, so there is no lease to keep.

    Returns:
        The row afterwards: finished, or queued again after a failure that another try may mend.

    Raises:
        Conflict: it is not queued (any more).
    """
    job = Job.objects.get(pk=job_id)
    claim = claim_job(job.pk, job.attempt)
    if claim is None:
        job.refresh_from_db()
        raise Conflict(f"Job {job.pk} is {job.state}, so it cannot be run here.")
    _attempt(claim, Lease(claim), on_progress)
    job.refresh_from_db()
    return job


def _attempt(claim: Claim, lease: Lease, on_progress: OnProgress = None) -> str:
    job = Job.objects.select_related("requested_by").get(pk=claim.job_id)
    with _acting_as(job):
        log.info("job started", queue=job.queue, key=job.key)
        alone = connection.in_atomic_block
        if not alone:
            lease.start()
        try:
            outcome = _call(JobContext(job, lease, on_progress), claim)
        finally:
            lease.end()
        ended = outcome.text if _written(outcome) else FENCED
        log.info("job ended", outcome=ended)
        return ended


@dataclass(frozen=True)
class _Outcome:
    """What became of an attempt, and the UPDATE that says so: True when the lease still held."""

    text: str
    write: Callable[[], bool]


def _call(context: JobContext, claim: Claim) -> _Outcome:
    """Call the job's function."""
    job = context.job
    try:
        # Inside a test's transaction, a savepoint: an error must not spoil what comes after.
        with transaction.atomic() if connection.in_atomic_block else nullcontext():
            result = jsonable(job_function(job.function)(context))
        if context.asked_to_stop:
            raise JobCancelled
    except JobCancelled:
        return _stopped(claim, context.stop_reason)
    except JobPostponed as reason:
        log.info("job postponed", why=str(reason))
        return _Outcome("postponed", partial(release, claim, error=str(reason), wait_seconds=POSTPONED_SECONDS))
    except KeyboardInterrupt:
        release(claim, error="Interrupted by hand.")
        raise
    except Refused as refusal:
        log.warning("job refused", why=str(refusal))
        return _Outcome("refused", partial(give_up, claim, Job.State.FAILED, str(refusal)))
    except (Exception, SystemExit) as error:
        log.exception("job raised", max_attempts=job.max_attempts)
        return _raised(job, claim, error)
    return _Outcome("succeeded", partial(succeed, claim, result))


def _stopped(claim: Claim, reason: Stop | None) -> _Outcome:
    if reason is Stop.LOST:
        return _Outcome(FENCED, lambda: False)
    if reason is Stop.INTERRUPTED:
        return _Outcome("interrupted; queued again", partial(release, claim))
    error = "Cancelled while it was running."
    return _Outcome("cancelled", partial(give_up, claim, Job.State.CANCELLED, error))


def _raised(job: Job, claim: Claim, error: BaseException) -> _Outcome:
    lines = str(error).replace("\0", "").strip().splitlines()
    what = f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__
    sentence = f"{job.function} failed on attempt {job.attempt} of {job.max_attempts} with {what}"
    if job.attempt >= job.max_attempts:
        sentence += f" (the traceback is in the worker's log, under job {job.pk})."
        return _Outcome("failed", partial(give_up, claim, Job.State.FAILED, sentence))
    wait = min(RETRY_WAIT_SECONDS * 2 ** (job.attempt - 1), LONGEST_RETRY_WAIT_SECONDS)
    again = partial(release, claim, error=f"{sentence}; it is tried again.", wait_seconds=wait, next_attempt=True)
    return _Outcome(f"failed; queued again in {wait:.0f} s", again)


def _written(outcome: _Outcome) -> bool:
    """Write the outcome. A database that is away for a moment must not cost hours of work: ask again until it is
    back. The lease token in the UPDATE makes that safe, however long it takes."""
    deadline, pause = time.monotonic() + WRITE_TIMEOUT_SECONDS, 0.5
    while True:
        replace_broken_connection()
        try:
            return outcome.write()
        except (OperationalError, InterfaceError) as error:
            if connection.in_atomic_block or time.monotonic() > deadline:
                raise
            log.warning("the outcome could not be written; trying again", error=str(error).strip())
            connection.close()
            time.sleep(pause)
            pause = min(pause * 2, 10.0)


@contextmanager
def _acting_as(job: Job) -> Iterator[None]:
    """Bind the actor, for the audit trail and for every line of the log."""
    name = job.function.rsplit(".", 1)[-1]
    with (
        acting(user=job.requested_by, name=f"job {name}", request_id=job.request_id, job_id=job.pk) as actor,
        structlog.contextvars.bound_contextvars(
            job_id=str(job.pk), job=name, attempt=job.attempt, request_id=actor.request_id
        ),
    ):
        yield


def _kill_this_process() -> None:
    """Kill this attempt at once, because another one is running: it must not write another file."""
    os.kill(os.getpid(), signal.SIGKILL)
