"""Waiting for a job to end."""

import time
from collections.abc import Callable

from thawloop.core.errors import Unavailable
from thawloop.core.models import Job

QUICKEST_POLL_SECONDS, SLOWEST_POLL_SECONDS = 0.1, 1.0


def wait_for(job: Job, timeout: float | None = None, on_progress: Callable[[Job], None] | None = None) -> Job:
    """Watch the row until the job has ended, whoever runs it.

    Args:
        job: The row.
        timeout: Seconds to wait; None waits for ever.
        on_progress: Called with the fresh row after every look.

    Raises:
        Unavailable: it has not ended in that time; it goes on by itself.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = QUICKEST_POLL_SECONDS
    while True:
        job = Job.objects.get(pk=job.pk)
        if on_progress:
            on_progress(job)
        if not job.is_active:
            return job
        if deadline is not None and time.monotonic() > deadline:
            raise Unavailable(f"Job {job.pk} is still {job.state} after {timeout:.0f} s; it goes on by itself.")
        time.sleep(pause)
        pause = min(pause * 1.3, SLOWEST_POLL_SECONDS)
