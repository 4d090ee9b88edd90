"""Durable background work: a row in PostgreSQL is the truth, RQ only carries its id.

    function   what may run as a job, and how: the decorator `job`
    rows       asking for work: enqueue, cancel, retry; ending a row
    queue      RQ: notifies workers that a row waits
    worker     the process that takes notifications
    run        one attempt, from claim to the fenced final UPDATE
    context    what a job function is given
    lease      the claim on a running row, renewed by a heartbeat
    wait       until a job has ended
    reconcile  lost notifications, and jobs whose worker died

A job function is declared with `@job(queue=..., max_attempts=..., on_failed=...)` and takes a `JobContext`. It is
idempotent, because it is called again after its worker died. It raises `Refused` when a person must mend something (no
second try), `JobPostponed` while what it needs is under way, and anything else when another try may help. It calls
`context.check_cancelled()` now and then.
"""

from thawloop.core.jobs.context import JobCancelled, JobContext, JobPostponed
from thawloop.core.jobs.function import JobFunction, job
from thawloop.core.jobs.reconcile import reconcile_jobs
from thawloop.core.jobs.rows import cancel_job, dispatch, enqueue, retry_job
from thawloop.core.jobs.run import execute, run_inline
from thawloop.core.jobs.wait import wait_for

__all__ = [
    "JobCancelled",
    "JobContext",
    "JobFunction",
    "JobPostponed",
    "cancel_job",
    "dispatch",
    "enqueue",
    "execute",
    "job",
    "reconcile_jobs",
    "retry_job",
    "run_inline",
    "wait_for",
]
