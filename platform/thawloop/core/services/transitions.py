"""The life of a job row: claimed, renewed, ended. Each step is one UPDATE that only the lease's holder can make.

Times are the database's, so workers' clocks do not matter.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import ExpressionWrapper, F
from django.db.models.expressions import Combinable
from django.db.models.fields import DateTimeField
from django.db.models.functions import Now

from thawloop.core.functions import failure_hook
from thawloop.core.models import Job

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Claim:
    """The right to work on a job until somebody else holds another token."""

    job_id: UUID
    token: UUID


def claim(job_id: UUID, attempt: int) -> Claim | None:
    """Take a queued job; None when this delivery is stale (done, taken or cancelled, or a later attempt is due)."""
    token = uuid4()
    taken = Job.objects.filter(id=job_id, attempt=attempt, state=Job.State.QUEUED).update(
        state=Job.State.RUNNING,
        lease_token=token,
        lease_until=from_now(settings.THAWLOOP_JOB_LEASE_SECONDS),
        started=Now(),
        progress=0,
        progress_message="",
    )
    return Claim(job_id, token) if taken else None


def renew(claim: Claim, progress: float, message: str) -> bool | None:
    """Extend the lease and show progress; returns whether somebody asked to cancel, or None when the lease is lost."""
    held = _held(claim)
    if not held.update(
        lease_until=from_now(settings.THAWLOOP_JOB_LEASE_SECONDS), progress=progress, progress_message=message
    ):
        return None
    cancel_requested: bool | None = held.values_list("cancel_requested", flat=True).first()
    return cancel_requested


def succeed(claim: Claim, result: Any) -> bool:
    """Record the result; False when the lease was lost, and then nothing is written."""
    return bool(
        _held(claim).update(
            state=Job.State.SUCCEEDED,
            result=result,
            error="",
            progress=1,
            finished=Now(),
            lease_token=None,
            lease_until=None,
        )
    )


def release(claim: Claim, *, error: str = "", wait_seconds: float = 0, next_attempt: bool = False) -> bool:
    """Put the job back into the queue; the reconciler rings for it when the wait is over."""
    return bool(
        _held(claim).update(
            state=Job.State.QUEUED,
            attempt=F("attempt") + int(next_attempt),
            error=error,
            not_before=from_now(wait_seconds),
            dispatched=None,
            lease_token=None,
            lease_until=None,
        )
    )


def give_up(claim: Claim, state: Job.State, error: str) -> bool:
    """End the job as failed or cancelled, with its function's clean-up, in one transaction."""
    with transaction.atomic():
        job = _held(claim).select_for_update(of=("self",)).first()
        if job is None:
            return False
        end(job, state, error)
    return True


def end(job: Job, state: Job.State, error: str) -> None:
    """End a job that the caller has locked, and call its function's `on_failed(job, error)` in the same transaction.

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


def from_now(seconds: float) -> Combinable:
    """The database's time in so many seconds."""
    return ExpressionWrapper(Now() + timedelta(seconds=seconds), output_field=DateTimeField())


def _held(claim: Claim) -> Any:
    return Job.objects.filter(id=claim.job_id, lease_token=claim.token, state=Job.State.RUNNING)
