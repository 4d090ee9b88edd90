"""Job rows: asking for work, notifying workers of it, cancelling, trying again, ending."""

from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from thawloop.core.context import current_actor
from thawloop.core.errors import Conflict, Refused
from thawloop.core.jobs.function import failure_hook, job_function
from thawloop.core.jobs.lease import Claim, held
from thawloop.core.jobs.queue import RedisUnavailable, notify
from thawloop.core.jsonable import jsonable
from thawloop.core.models import Job
from thawloop.core.services.auditing import audit

log = structlog.get_logger(__name__)


def enqueue(function: str, *, key: str, args: dict[str, Any] | None = None) -> Job:
    """Ask for a piece of work: a row in the caller's transaction, of which workers are notified when that commits.

    While a job with the same key is queued or running, that one is returned and nothing is added.

    Args:
        function: Dotted path of the job function, which says in which queue and how often it is tried.
        key: What is worked on, e.g. `predict:campaign:3`.
        args: JSON values; the function finds them in `JobContext.args`.

    Raises:
        Refused: there is no such job function, or the key is empty or too long.
    """
    declared = job_function(function)
    if not 0 < len(key) <= 200:
        raise Refused(f"A job's key has 1 to 200 characters; this one has {len(key)}: {key[:40]!r}.")
    actor = current_actor()
    wanted = Job(
        function=function,
        key=key,
        queue=declared.queue,
        args=jsonable(args or {}),
        max_attempts=declared.max_attempts,
        requested_by=actor.user,
        request_id=actor.request_id,
    )
    for _ in range(5):
        # One statement that the partial unique index decides; nothing to roll back when another job was first.
        Job.objects.bulk_create([wanted], ignore_conflicts=True)
        job = Job.objects.filter(key=key, state__in=Job.ACTIVE).first()
        if job is not None:
            break
    else:
        raise Conflict(f"Jobs with the key {key!r} come and go too fast: try again.")
    if job.pk == wanted.pk:
        transaction.on_commit(partial(dispatch, job.pk, job.attempt, job.dispatches), robust=True)
    return job


def dispatch(job_id: UUID, attempt: int, dispatches: int) -> bool:
    """Notify the workers of a queued row; returns whether that was done.

    Args:
        job_id: The row.
        attempt: Its attempt.
        dispatches: How often they were notified of it as far as the caller knows. Of two processes that know the same
            number only one notifies.
    """
    waiting = Job.objects.filter(id=job_id, attempt=attempt, state=Job.State.QUEUED, dispatches=dispatches)
    if not waiting.update(dispatches=F("dispatches") + 1, dispatched=Now()):
        return False
    name = Job.objects.values_list("queue", flat=True).get(id=job_id)
    try:
        notify(name, str(job_id), attempt, dispatches + 1)
    except RedisUnavailable as error:
        log.warning("job waits for the reconciler", job_id=str(job_id), why=str(error))
        Job.objects.filter(id=job_id, state=Job.State.QUEUED, dispatches=dispatches + 1).update(dispatched=None)
        return False
    return True


def cancel_job(job: Job, *, reason: str = "") -> Job:
    """Cancel a queued job at once; ask a running one to stop, which it does at its next heartbeat and check.

    Raises:
        Conflict: it has ended already.
    """
    with transaction.atomic():
        row = Job.objects.select_for_update(of=("self",)).get(pk=job.pk)
        before = {"state": row.state, "cancel_requested": row.cancel_requested}
        if row.state == Job.State.QUEUED:
            end(row, Job.State.CANCELLED, f"Cancelled by {current_actor().name} before it started.")
        elif row.state == Job.State.RUNNING:
            Job.objects.filter(pk=row.pk).update(cancel_requested=True)
        else:
            raise Conflict(f"Job {row.pk} cannot be cancelled: it has {row.state} already.")
        row.refresh_from_db()
        audit(
            "core.cancel_job",
            row,
            before=before,
            after={"state": row.state, "cancel_requested": row.cancel_requested},
            reason=reason,
        )
    return row


def retry_job(job: Job, *, reason: str = "") -> Job:
    """Ask for the same work again, as a new job.

    Raises:
        Conflict: the job is not one that failed or was cancelled, or the same work is under way.
    """
    job.refresh_from_db()
    if job.state not in (Job.State.FAILED, Job.State.CANCELLED):
        raise Conflict(f"Job {job.pk} is {job.state}: only a failed or cancelled job can be tried again.")
    with transaction.atomic():
        known = set(Job.objects.filter(key=job.key, state__in=Job.ACTIVE).values_list("pk", flat=True))
        again = enqueue(job.function, key=job.key, args=job.args)
        if again.pk in known:
            raise Conflict(f"Job {again.pk} is doing the same work already: wait for it or cancel it first.")
        audit("core.retry_job", again, before={"job": job.pk, "error": job.error}, reason=reason)
    return again


def give_up(claim: Claim, state: Job.State, error: str) -> bool:
    """End the job as failed or cancelled, with its function's clean-up, in one transaction."""
    with transaction.atomic():
        job = held(claim).select_for_update(of=("self",)).first()
        if job is None:
            return False
        end(job, state, error)
    return True


def end(job: Job, state: Job.State, error: str) -> None:
    """End a job that the caller has locked, and call the function's `on_failed(job, error)` in the same transaction.

    A clean-up that fails is rolled back, logged and mentioned; the end of the job is recorded all the same.
    """
    job.state, job.error = state, error
    job.lease_token = job.lease_until = None
    Job.objects.filter(pk=job.pk).update(state=state, error=error, lease_token=None, lease_until=None, finished=Now())
    job.refresh_from_db()
    try:
        with transaction.atomic():
            if hook := failure_hook(job.function):
                hook(job, error)
    except Exception as trouble:
        log.exception("clean-up after a job failed", job_id=str(job.pk), function=job.function)
        job.error = f"{error} Besides, its clean-up failed ({type(trouble).__name__}: {trouble}); see the log."
        Job.objects.filter(pk=job.pk).update(error=job.error)
