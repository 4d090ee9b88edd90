"""Jobs that leave traces: each line of the trace file is one thing that one process did."""

import os
import time
from pathlib import Path

from thawloop.core.jobs import JobContext, job


def trace(job: JobContext, event: str) -> None:
    """Append a line `event attempt pid`, in one write that cannot mix with another's."""
    with Path(job.args["trace"]).open("a") as file:
        file.write(f"{event} {job.job.attempt} {os.getpid()}\n")


@job()
def steps(job: JobContext) -> dict:
    """Work until the file `args["until"]` exists (or at once), looking now and then whether to stop."""
    trace(job, "began")
    gate = Path(job.args["until"]) if "until" in job.args else None
    while gate is not None and not gate.exists():
        job.check_cancelled()
        time.sleep(0.05)
    trace(job, "ended")
    return {"attempt": job.job.attempt, "pid": os.getpid()}


@job()
def deaf(job: JobContext) -> dict:
    """Like `steps`, but never looks whether to stop."""
    trace(job, "began")
    while not Path(job.args["until"]).exists():
        time.sleep(0.05)
    trace(job, "ended")
    return {"attempt": job.job.attempt}
