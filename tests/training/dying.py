"""Run one job in a process of its own, which kills itself (SIGKILL) at a given point: `dying.py JOB POINT`.

Points of a training: `trained` (a resume state is there), `published` (the checkpoint is an artifact, the database does
not know), `recorded` (inside the transaction that records it), `committed` (recorded; the job does not know).
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "platform"), str(HERE.parents[1])]

import django  # noqa: E402

django.setup()

from ml_backend.jobs import training as jobs  # noqa: E402
from thawloop.core.jobs import JobContext, run_inline  # noqa: E402
from thawloop.training.services import results  # noqa: E402


def die(*_: Any, **__: Any) -> None:
    """As if the power went."""
    os.kill(os.getpid(), signal.SIGKILL)


def then_die(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let it happen, then die."""

    def wrapped(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)
        die()

    return wrapped


def main(job: str, point: str) -> None:
    """Put the bomb in place and run the job."""
    if point == "trained":
        JobContext.should_stop = die  # type: ignore[method-assign]  # asked at the first iteration
    elif point == "published":
        results.publish_checkpoint = then_die(results.publish_checkpoint)
    elif point == "recorded":
        results.advance_locked = then_die(results.advance_locked)
    elif point == "committed":
        jobs.finish_run = then_die(jobs.finish_run)
    run_inline(job)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
