"""What a job function is given, and how it says that it stops or waits."""

from collections.abc import Callable
from typing import Any

import structlog
from django.db import close_old_connections, connection

from thawloop.core.jobs.lease import Lease, Stop
from thawloop.core.models import Job


def replace_broken_connection() -> None:
    """Drop this thread's database connection if it broke or is too old; the next query opens another.

    Does nothing inside a transaction, which cannot move to another connection.
    """
    if not connection.in_atomic_block:
        close_old_connections()


class JobCancelled(Exception):
    """The job should stop here. Let it pass: whoever runs the job records why."""


class JobPostponed(Exception):
    """The job cannot begin yet, because what it needs is under way; the message says what.

    It is queued again and starts again a little later. That is not a failure and uses up no attempt.
    """


class JobContext:
    """A running job, seen from inside.

    Attributes:
        job: The row as it was when this attempt began.
        args: What the job was asked to do.
        log: A logger that names the job in every line.
    """

    def __init__(self, job: Job, lease: Lease, on_progress: Callable[[float, str], None] | None = None) -> None:
        self.job = job
        self.args: dict[str, Any] = job.args
        self.log = structlog.get_logger(job.function)
        self._lease = lease
        self._on_progress = on_progress
        self.asked_to_stop = False

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the work is (0 to 1) and what is being done; cheap enough to be called in every iteration."""
        fraction, message = min(max(float(fraction), 0.0), 1.0), message[:300]
        self._lease.report(fraction, message)
        if self._on_progress:
            self._on_progress(fraction, message)

    def should_stop(self) -> bool:
        """Whether to stop: cancelled, shutting down, or taken over by another attempt.

        A function that got True here and then returns is taken to have stopped: its result is not recorded as success.
        """
        # A connection that broke while the job was busy elsewhere is replaced here, not at the next query.
        replace_broken_connection()
        self.asked_to_stop = self.asked_to_stop or self.stop_reason is not None
        return self.asked_to_stop

    @property
    def stop_reason(self) -> Stop | None:
        """Why the job should stop, if it should."""
        return self._lease.stop_reason

    def check_cancelled(self) -> None:
        """Raise `JobCancelled` when the job should stop."""
        if self.should_stop():
            raise JobCancelled(self.stop_reason.value if self.stop_reason else "")
