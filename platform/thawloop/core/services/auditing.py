"""The audit trail."""

from typing import Any

from django.db.models import Model

from thawloop.core.context import current_actor
from thawloop.core.jsonable import jsonable
from thawloop.core.models import AuditEntry


def audit(
    action: str,
    obj: Model,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
) -> AuditEntry:
    """Record a change of state in the caller's transaction, so that both happen or neither.

    Args:
        action: Room and verb, e.g. `training.promote`.
        obj: The saved row that changed.
        before: What mattered before, as JSON values; dates and UUIDs are converted.
        after: The same afterwards.
        reason: Why, in a person's words.

    Who acts, and in which request and job, is taken from `thawloop.core.context`.
    """
    actor = current_actor()
    return AuditEntry.objects.create(
        actor=actor.user,
        actor_name=actor.name[:150],
        action=action,
        object_type=obj._meta.label_lower,
        object_id=str(obj.pk),
        object_name=str(obj)[:200],
        before=jsonable(before),
        after=jsonable(after),
        reason=reason,
        request_id=actor.request_id,
        job_id=actor.job_id,
    )
