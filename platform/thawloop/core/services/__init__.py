"""Every change of state in core that is no job's: the audit trail and API tokens."""

from thawloop.core.services.auditing import audit
from thawloop.core.services.tokens import make_token, withdraw_token

__all__ = ["audit", "make_token", "withdraw_token"]
