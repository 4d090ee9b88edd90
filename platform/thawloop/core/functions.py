"""Job functions, named by dotted path: what may be named, finding them, and their hook for final failure."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.utils.module_loading import import_string

from thawloop.core.errors import Refused

if TYPE_CHECKING:
    from thawloop.core.jobs import JobContext
    from thawloop.core.models import Job

PACKAGES = ("thawloop.", "labeling.", "ml_backend.")


def check_function(function: str) -> str:
    """Return the dotted path if jobs may call it.

    Raises:
        Refused: it is not in one of our packages.
    """
    if not function.startswith(PACKAGES) or not all(part.isidentifier() for part in function.split(".")):
        raise Refused(f"{function!r} cannot run as a job: its dotted path must begin with {', '.join(PACKAGES)}.")
    return function


def job_function(function: str) -> "Callable[[JobContext], Any]":
    """The function of that dotted path."""
    found: Callable[[JobContext], Any] = import_string(check_function(function))
    return found


def failure_hook(function: str) -> "Callable[[Job, str], None] | None":
    """What the function's author wants called when the job is given up or cancelled (`f.on_failed = g`), if anything.

    It is called in whatever process gives the job up, so the module must be importable without torch.
    """
    return getattr(job_function(function), "on_failed", None)
