"""Reconciling jobs: lost notifications, and jobs whose worker died."""

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from thawloop.core.jobs import queue
from thawloop.core.jobs.lease import from_now
from thawloop.core.jobs.rows import dispatch, end
from thawloop.core.models import QUEUES, Job


def reconcile_jobs() -> list[str]:
    """Requeue (or fail) jobs whose lease expired, then notify workers again of queued jobs whose notification was lost.

    Any number of processes may do this at once. Nothing is ever removed from Redis: a second delivery is harmless.

    Returns:
        What was done, one sentence each.
    """
    return _expired_leases() + _forgotten_jobs()


def _expired_leases() -> list[str]:
    done = []
    while (sentence := _end_one_lease()) is not None:
        done.append(sentence)
    return done


def _end_one_lease() -> str | None:
    """One job per transaction, so that one job's clean-up cannot undo another's."""
    with transaction.atomic():
        expired = Job.objects.filter(state=Job.State.RUNNING, lease_until__lt=Now()).order_by("lease_until")
        job = expired.select_for_update(of=("self",), skip_locked=True).first()
        if job is None:
            return None
        if job.cancel_requested:
            end(job, Job.State.CANCELLED, "Cancelled; its worker had died.")
            return f"{job}: its worker died after it was asked to stop."
        if job.attempt >= job.max_attempts:
            error = (
                f"The lease expired on attempt {job.attempt} of {job.max_attempts}: the worker died or lost the "
                f"database; look for job {job.pk} in the log of the {job.queue} worker."
            )
            end(job, Job.State.FAILED, error)
            return f"{job}: {error}"
        Job.objects.filter(pk=job.pk).update(
            state=Job.State.QUEUED,
            attempt=F("attempt") + 1,
            error=f"The lease of attempt {job.attempt} expired: its worker died or lost the database.",
            lease_token=None,
            lease_until=None,
            dispatched=None,
            not_before=None,
        )
        return f"{job}: the lease of attempt {job.attempt} of {job.max_attempts} expired; it is queued again."


def _forgotten_jobs() -> list[str]:
    due = _due_jobs()
    if not due.exists():
        return []
    try:
        waiting = {name: queue.waiting(name) for name in QUEUES}
    except queue.RedisUnavailable as error:
        return [f"{due.count()} queued jobs wait: {error}"]
    done = []
    for job in due.order_by("created")[:1000]:
        if job.dispatched and f"{job.pk}-{job.attempt}-{job.dispatches}" in waiting[job.queue]:
            continue
        if dispatch(job.pk, job.attempt, job.dispatches) and job.dispatches:
            done.append(f"{job}: notified workers again (time {job.dispatches + 1}).")
    return done


def _due_jobs() -> QuerySet[Job]:
    """Queued jobs of which workers were never notified, or so long ago that the notification must have been lost."""
    grace = settings.THAWLOOP_JOB_DISPATCH_GRACE_SECONDS
    return Job.objects.filter(
        Q(dispatched__isnull=True) | Q(dispatched__lt=from_now(-grace)),
        Q(not_before__isnull=True) | Q(not_before__lte=Now()),
        state=Job.State.QUEUED,
    )
