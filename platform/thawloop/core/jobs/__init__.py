"""Running jobs: what RQ calls, what a job function is given, and waiting for the end.

A job function is `def f(job: JobContext) -> dict | None`. It is idempotent, because it is called again after its
worker died. It raises `Refused` when a person must mend something (no second try), `JobPostponed` while what it needs
is under way, and anything else when another try may help. It looks at `job.check_cancelled()` now and then.
`f.on_failed = g` names `g(job_row, error)`, called in the transaction that marks the job failed or cancelled.
"""

from thawloop.core.jobs.context import JobCancelled, JobContext, JobPostponed
from thawloop.core.jobs.execution import execute, run_inline
from thawloop.core.jobs.waiting import wait_for

__all__ = ["JobCancelled", "JobContext", "JobPostponed", "execute", "run_inline", "wait_for"]
