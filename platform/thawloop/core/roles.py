"""The four roles, as Django groups. Each room declares what they may do in it; `migrate` grants exactly that.

For other combinations make groups of your own: these four are reset at every migration.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.apps import AppConfig
from django.contrib.auth.models import Group, Permission

ROLES = ("annotator", "reviewer", "lead", "admin")


@dataclass(frozen=True)
class Grants:
    """What roles may do in a room: names of permissions (`change_label`), besides looking at everything."""

    reviewer: frozenset[str]
    lead: frozenset[str]
    seen_by_leads_only: frozenset[str]
    seen_by_admins_only: frozenset[str]


_granted: dict[str, Grants] = {}


def grant_to_roles(
    app_label: str,
    *,
    reviewer: Iterable[str] = (),
    lead: Iterable[str] = (),
    seen_by_leads_only: Iterable[str] = (),
    seen_by_admins_only: Iterable[str] = (),
) -> None:
    """Declare what the roles may do in a room; called from its app's `ready()`.

    Everybody may look at everything, an admin may do everything, and a lead whatever a reviewer may.

    Args:
        app_label: The room.
        reviewer: Names of permissions of reviewers and leads.
        lead: Of leads alone.
        seen_by_leads_only: `view_` permissions that annotators and reviewers do not get.
        seen_by_admins_only: `view_` permissions that admins alone get.
    """
    _granted[app_label] = Grants(*map(frozenset, (reviewer, lead, seen_by_leads_only, seen_by_admins_only)))


def may_enter_admin(user: Any) -> bool:
    """Whether somebody has something to do in the admin: reviewers, leads, admins, and staff."""
    reviewing = (f"{app}.{name}" for app, grants in _granted.items() for name in grants.reviewer)
    return bool(user.is_active and (user.is_staff or any(map(user.has_perm, reviewing))))


def grant(sender: AppConfig, **_: Any) -> None:
    """After an app was migrated, and Django has made its permissions: give them to the roles."""
    if sender.label not in _granted:
        return
    permissions = list(Permission.objects.filter(content_type__app_label=sender.label))
    for role in ROLES:
        group, _created = Group.objects.get_or_create(name=role)
        group.permissions.remove(*group.permissions.filter(content_type__app_label=sender.label))
        group.permissions.add(*(row for row in permissions if _may(role, row.codename, _granted[sender.label])))


def _may(role: str, permission: str, granted: Grants) -> bool:
    if role == "admin" or (permission in granted.reviewer and role in ("reviewer", "lead")):
        return True
    if role == "lead" and permission in granted.lead:
        return True
    hidden = granted.seen_by_admins_only if role == "lead" else granted.seen_by_admins_only | granted.seen_by_leads_only
    return permission.startswith("view_") and permission not in hidden
