"""Holding on to a running job: a thread that renews the lease and learns whether to stop."""

import enum
import threading
import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from thawloop.core.services.transitions import Claim, renew

log = structlog.get_logger(__name__)


class Stop(enum.Enum):
    """Why a running job should stop."""

    CANCELLED = "somebody cancelled it"
    INTERRUPTED = "its worker is shutting down"
    LOST = "its lease is lost"


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
        """Stop renewing; returns when nothing more will be written."""
        self._over.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def report(self, fraction: float, message: str) -> None:
        """Show progress: soon, and not more often than the row can bear."""
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
                self._rest(began)
        finally:
            connection.close()

    def _rest(self, began: float) -> None:
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
