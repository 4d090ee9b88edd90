"""Who may do what."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command

pytestmark = pytest.mark.django_db

MAY = {
    "labeling.view_label": {"annotator", "reviewer", "lead", "admin"},
    "catalog.view_tile": {"annotator", "reviewer", "lead", "admin"},
    "core.view_job": {"annotator", "reviewer", "lead", "admin"},
    "labeling.change_label": {"reviewer", "lead", "admin"},
    "campaigns.sync_campaign": {"lead", "admin"},
    "campaigns.add_campaign": {"lead", "admin"},
    "training.start_retraining": {"lead", "admin"},
    "registry.promote_modelversion": {"lead", "admin"},
    "releases.add_release": {"lead", "admin"},
    "labeling.add_labelimport": {"lead", "admin"},
    "core.change_job": {"lead", "admin"},
    "core.view_auditentry": {"lead", "admin"},
    "catalog.delete_scene": {"admin"},
    "labeling.delete_label": {"admin"},
}


@pytest.mark.parametrize("permission", MAY)
def test_each_role_has_the_permissions_it_needs_and_no_others(permission: str, member: Callable[[str], User]) -> None:
    roles = ("annotator", "reviewer", "lead", "admin")
    assert {role for role in roles if member(role).has_perm(permission)} == MAY[permission]


def test_every_permission_that_a_role_names_exists() -> None:
    from thawloop.core import roles

    known = {f"{app}.{name}" for app, name in Permission.objects.values_list("content_type__app_label", "codename")}
    named = {
        f"{app}.{name}"
        for app, grants in roles._granted.items()
        for name in (
            *(grants.reviewer | grants.lead),
            *(grants.seen_by_leads_only | grants.seen_by_admins_only),
        )
    }
    assert len(named) > 30
    assert known >= named


def test_migrating_again_mends_the_four_roles_and_leaves_other_groups_alone() -> None:
    lead, own = Group.objects.get(name="lead"), Group.objects.create(name="our own")
    before = set(lead.permissions.all())
    too_much = Permission.objects.get(codename="delete_scene")
    lead.permissions.add(too_much)
    lead.permissions.remove(Permission.objects.get(codename="start_retraining"))
    own.permissions.add(too_much)
    call_command("migrate", verbosity=0)
    assert set(lead.permissions.all()) == before
    assert list(own.permissions.all()) == [too_much]
