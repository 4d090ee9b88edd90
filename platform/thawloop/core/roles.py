"""The four roles, as Django groups. They are defined here: `migrate` gives each exactly these permissions.

Other mixtures are groups of one's own; these four are set again at every migration.
"""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.models import Group, Permission

ROOMS = ("core", "catalog", "labeling", "releases", "training")
ROLES = ("annotator", "reviewer", "lead", "admin")

_REVIEWER = {"labeling.change_label", "labeling.add_labelrevision"}
_LEAD = {
    "core.change_job",
    "core.view_auditentry",
    "catalog.add_region",
    "catalog.change_region",
    "catalog.add_modality",
    "catalog.change_modality",
    "catalog.add_scene",
    "catalog.change_scene",
    "catalog.add_tilegrid",
    "catalog.change_tilegrid",
    "catalog.add_tile",
    "labeling.add_landformclass",
    "labeling.change_landformclass",
    "labeling.add_campaign",
    "labeling.change_campaign",
    "labeling.sync_campaign",
    "labeling.add_acquisitionbatch",
    "labeling.add_annotationtask",
    "labeling.change_annotationtask",
    "releases.add_release",
    "releases.change_release",
    "labeling.add_labelimport",
    "labeling.withdraw_labelimport",
    "training.add_retrainpolicy",
    "training.change_retrainpolicy",
    "training.add_retraining",
    "training.change_retraining",
    "training.start_retraining",
    "training.promote_modelversion",
    "training.add_promotion",
}
_FOR_LEADS_ONLY = {"core.view_auditentry"}
_FOR_ADMINS_ONLY = {"core.view_apitoken", "core.view_loginfailure"}


def may_enter_admin(user: Any) -> bool:
    """Whether somebody has something to do in the admin: reviewers, leads, admins, and staff."""
    return bool(user.is_active and (user.is_staff or user.has_perm("labeling.change_label")))


def grant(sender: AppConfig, **_: Any) -> None:
    """After an app was migrated, and Django has made its permissions: give them to the roles."""
    if sender.label not in ROOMS:
        return
    permissions = list(Permission.objects.filter(content_type__app_label=sender.label).select_related("content_type"))
    for role in ROLES:
        group, _created = Group.objects.get_or_create(name=role)
        group.permissions.remove(*group.permissions.filter(content_type__app_label=sender.label))
        group.permissions.add(*(permission for permission in permissions if _may(role, permission)))


def _may(role: str, permission: Permission) -> bool:
    name = f"{permission.content_type.app_label}.{permission.codename}"
    if role == "admin" or (role == "lead" and name in _LEAD | _REVIEWER):
        return True
    if role == "reviewer" and name in _REVIEWER:
        return True
    return permission.codename.startswith("view_") and name not in _FOR_LEADS_ONLY | _FOR_ADMINS_ONLY
