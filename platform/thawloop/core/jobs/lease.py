"""The claim on a running job: taken, renewed by a heartbeat, given back. Each step is one UPDATE that only the holder
of the claim can make, and times are the database's, so that workers' clocks do not matter.
"""

import enum
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import ExpressionWrapper, F, QuerySet
from django.db.models.expressions import Combinable
from django.db.models.fields import DateTimeField
from django.db.models.functions import Now

from thawloop.core.models import Job

log = structlog.get_logger(__name__)


class Stop(enum.Enum):
    """Why a running job should stop."""

    CANCELLED = "somebody cancelled it"
    INTERRUPTED = "its worker is shutting down"
    LOST = "its lease is lost"


@dataclass(frozen=True)
class Claim:
    """The right to work on a job until somebody else holds another token."""

    job_id: UUID
    token: UUID


def claim_job(job_id: UUID, attempt: int) -> Claim | None:
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
    rows = held(claim)
    if not rows.update(
        lease_until=from_now(settings.THAWLOOP_JOB_LEASE_SECONDS), progress=progress, progress_message=message
    ):
        return None
    cancel_requested: bool | None = rows.values_list("cancel_requested", flat=True).first()
    return cancel_requested


def succeed(claim: Claim, result: Any) -> bool:
    """Record the result; False when the lease was lost, and then nothing is written."""
    return bool(
        held(claim).update(
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
    """Put the job back into the queue; the reconciler notifies workers of it when the wait is over."""
    return bool(
        held(claim).update(
            state=Job.State.QUEUED,
            attempt=F("attempt") + int(next_attempt),
            error=error,
            not_before=from_now(wait_seconds),
            dispatched=None,
            lease_token=None,
            lease_until=None,
        )
    )


def from_now(seconds: float) -> Combinable:
    """The database's time in so many seconds."""
    return ExpressionWrapper(Now() + timedelta(seconds=seconds), output_field=DateTimeField())


def held(claim: Claim) -> QuerySet[Job]:
    """The row, as long as the claim on it holds; empty otherwise."""
    return Job.objects.filter(id=claim.job_id, lease_token=claim.token, state=Job.State.RUNNING)


class Lease:
    """Renews a claim every THAWLOOP_JOB_HEARTBEAT_SECONDS on a database connection of its own.

    Everything that is written to the row while the job runs is written here: the job's own transaction may be long,
    and must not lock the row against its heartbeat. An unreachable database is no reason to stop: the claim holds as
    long as nobody else has taken the job, and that needs the database, too.

    Args:
        claim: What is held.
        on_lost: Called in the heartbeat thread when another attempt has taken over.
    """

    FASTEST_SECONDS = 0.5

    def __init__(self, claim: Claim, on_lost: Callable[[], None] | None = None) -> None:
        self.claim = claim
        self.stop_reason: Stop | None = None
        self._on_lost = on_lost
        self._progress, self._message = 0.0, ""
        self._wake = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start renewing."""
        self._thread = threading.Thread(target=self._keep, name="job-heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop renewing; returns once nothing more will be written."""
        self._over.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def report(self, fraction: float, message: str) -> None:
        """Show progress soon, but not more often than every `FASTEST_SECONDS`."""
        self._progress, self._message = fraction, message
        if self._thread is None:
            self._beat()
        else:
            self._wake.set()

    def interrupt(self) -> None:
        """Ask the job to stop here, to be continued by another worker."""
        self.stop_reason = self.stop_reason or Stop.INTERRUPTED

    def _keep(self) -> None:
        try:
            while not self._over.is_set():
                began = time.monotonic()
                try:
                    self._beat()
                except (DatabaseError, InterfaceError) as error:
                    log.warning("heartbeat could not reach the database; trying again", error=str(error).strip())
                    connection.close()
                self._wait(began)
        finally:
            connection.close()

    def _wait(self, began: float) -> None:
        self._wake.wait(settings.THAWLOOP_JOB_HEARTBEAT_SECONDS)
        self._over.wait(max(0.0, self.FASTEST_SECONDS - (time.monotonic() - began)))
        self._wake.clear()

    def _beat(self) -> None:
        cancel_requested = renew(self.claim, self._progress, self._message)
        if cancel_requested is None:
            self.stop_reason = Stop.LOST
            self._over.set()
            log.warning("lease lost: another attempt has taken over")
            if self._on_lost:
                self._on_lost()
        elif cancel_requested:
            self.stop_reason = Stop.CANCELLED
