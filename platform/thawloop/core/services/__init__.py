"""Every change of state in core: the audit trail and the life of a job row."""

from thawloop.core.services.auditing import audit
from thawloop.core.services.queueing import cancel_job, dispatch, enqueue, retry_job
from thawloop.core.services.reconciling import reconcile_jobs
from thawloop.core.services.tokens import make_token, withdraw_token

__all__ = [
    "audit",
    "cancel_job",
    "dispatch",
    "enqueue",
    "make_token",
    "reconcile_jobs",
    "retry_job",
    "withdraw_token",
]
