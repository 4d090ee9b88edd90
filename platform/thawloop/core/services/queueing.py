"""Asking for work: enqueue, cancel, retry, and ringing for a row."""

from functools import partial
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from thawloop.core import doorbell
from thawloop.core.context import current_actor
from thawloop.core.errors import Conflict, Refused
from thawloop.core.functions import check_function
from thawloop.core.jsonable import jsonable
from thawloop.core.models import QUEUES, Job
from thawloop.core.services.auditing import audit
from thawloop.core.services.transitions import end

log = structlog.get_logger(__name__)


def enqueue(
    function: str, *, key: str, queue: str = "default", args: dict[str, Any] | None = None, max_attempts: int = 3
) -> Job:
    """Ask for a piece of work: a row in the caller's transaction, and a ring for the workers when that commits.

    While a job with the same key is queued or running, that one is returned and nothing is added.

    Args:
        function: Dotted path of the job function; it takes a `JobContext` and must be idempotent.
        key: What is worked on, e.g. `predict:campaign:3`.
        queue: `default`, `raster` or `gpu`.
        args: JSON values; the function finds them in `JobContext.args`.
        max_attempts: How often it is tried when it raises, or when its worker dies.

    Raises:
        Refused: unknown queue, or a function outside our packages.
    """
    check_function(function)
    if queue not in QUEUES:
        raise Refused(f"There is no queue {queue!r}: choose one of {', '.join(QUEUES)}.")
    if not 0 < len(key) <= 200:
        raise Refused(f"A job's key has 1 to 200 characters; this one has {len(key)}: {key[:40]!r}.")
    actor = current_actor()
    wanted = Job(
        function=function,
        key=key,
        queue=queue,
        args=jsonable(args or {}),
        max_attempts=max_attempts,
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
    """Ring for a queued row. `dispatches` is how often that was done as far as the caller knows: who knows wrong
    loses, so that of two processes only one rings. Returns whether the bell was rung."""
    waiting = Job.objects.filter(id=job_id, attempt=attempt, state=Job.State.QUEUED, dispatches=dispatches)
    if not waiting.update(dispatches=F("dispatches") + 1, dispatched=Now()):
        return False
    name = Job.objects.values_list("queue", flat=True).get(id=job_id)
    try:
        doorbell.ring(name, str(job_id), attempt, dispatches + 1)
    except doorbell.RedisUnavailable as error:
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
        again = enqueue(job.function, key=job.key, queue=job.queue, args=job.args, max_attempts=job.max_attempts)
        if again.pk in known:
            raise Conflict(f"Job {again.pk} is doing the same work already: wait for it or cancel it first.")
        audit("core.retry_job", again, before={"job": job.pk, "error": job.error}, reason=reason)
    return again
