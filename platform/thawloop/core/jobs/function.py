"""Functions that run as jobs: each declares its queue, its attempts and what to do when it is given up."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeAlias

from django.utils.module_loading import import_string

from thawloop.core.errors import Refused
from thawloop.core.jobs.context import JobContext
from thawloop.core.models import QUEUES, Job

Work: TypeAlias = Callable[[JobContext], dict[str, Any] | None]
FailureHook: TypeAlias = Callable[[Job, str], None]


class JobFunction:
    """A function declared with `@job`; calling it calls the function.

    Attributes:
        queue: Whose workers run it.
        max_attempts: How often it is tried when it raises, or when its worker dies.
        on_failed: Called with the job's row and the error when the job fails for good or is cancelled, or None.
    """

    def __init__(self, work: Work, queue: str, max_attempts: int, on_failed: FailureHook | None) -> None:
        update_wrapper(self, work)
        self._work = work
        self.queue, self.max_attempts, self.on_failed = queue, max_attempts, on_failed

    def __call__(self, context: JobContext) -> dict[str, Any] | None:
        return self._work(context)


def job(
    *, queue: str = "default", max_attempts: int = 3, on_failed: FailureHook | None = None
) -> Callable[[Work], JobFunction]:
    """Declare that a function runs as a job: `@job(queue="gpu")`.

    Args:
        queue: `default`, `raster` or `gpu`.
        max_attempts: How often it is tried when it raises, or when its worker dies.
        on_failed: Called with the row and the error, in the transaction that marks the job failed or cancelled, in
            whatever process does that: the function's module must be importable without torch.

    Raises:
        ValueError: there is no such queue, or no attempt.
    """
    if queue not in QUEUES or max_attempts < 1:
        raise ValueError(f"A job has one of the queues {', '.join(QUEUES)}, and at least one attempt.")
    return lambda work: JobFunction(work, queue, max_attempts, on_failed)


def job_function(path: str) -> JobFunction:
    """The job function of that dotted path.

    Raises:
        Refused: there is none.
    """
    try:
        found = import_string(path)
    except ImportError as error:
        raise Refused(f"{path!r} cannot run as a job: {error}.") from error
    if not isinstance(found, JobFunction):
        raise Refused(f"{path!r} cannot run as a job: it is not declared as one (`@job`).")
    return found


def failure_hook(path: str) -> FailureHook | None:
    """What a job's function wants called when the job is given up; None for a function that is not there any more."""
    try:
        return job_function(path).on_failed
    except Refused:  # that is why the job is given up: its row says so
        return None
