"""Who gets where: leads and reviewers into the admin, and people without a role to a page that says whom to ask."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from thawloop.core.models import AuditEntry
from thawloop.training.models import RetrainPolicy

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def quick_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def account(*roles: str, **values: Any) -> Client:
    user = User.objects.create_user("-".join(["a", *roles]), password="long-enough-password", **values)
    user.groups.set(Group.objects.filter(name__in=roles))
    client = Client()
    form = {"username": user.username, "password": "long-enough-password", "next": "/admin/"}
    client.answer = client.post("/admin/login/", form)  # type: ignore[attr-defined]
    return client


def test_a_lead_changes_policy_and_settings_in_the_admin(campaign: Any) -> None:
    lead = account("lead")
    assert lead.answer.status_code == 302  # type: ignore[attr-defined]
    assert b'href="/admin/"' in lead.get("/").content
    policy = RetrainPolicy.objects.create(campaign=campaign)
    address = f"/admin/training/retrainpolicy/{policy.pk}/change/"
    form = {name: value for name, value in vars(policy).items() if name.startswith(("min", "cool", "gate"))}
    assert lead.post(address, form | {"min_new_tiles": 77, "enabled": "on"}).status_code == 302
    policy.refresh_from_db()
    assert policy.min_new_tiles == 77
    assert AuditEntry.objects.filter(actor_name="a-lead", object_type="training.retrainpolicy").exists()
    assert lead.get(f"/admin/campaigns/campaign/{campaign.pk}/change/").status_code == 200
    assert lead.get("/admin/auth/user/").status_code == 403


@pytest.mark.parametrize(("roles", "enters"), [(["reviewer"], True), (["annotator"], False), ([], False)])
def test_only_who_has_something_to_do_there_enters_the_admin(campaign: Any, roles: list[str], enters: bool) -> None:
    client = account(*roles)
    assert client.answer.status_code == (302 if enters else 200)  # type: ignore[attr-defined]
    assert client.get("/admin/").status_code == (200 if enters else 302)


def test_an_account_without_a_role_is_told_whom_to_ask(campaign: Any) -> None:
    User.objects.create_superuser("boss", first_name="Ada", last_name="Lovelace")
    User.objects.create_superuser("gone", is_active=False)
    client = Client()
    client.force_login(User.objects.create_user("new-one"))
    for path in ("/", f"/campaigns/{campaign.name}/"):
        page = client.get(path)
        assert page.status_code == 403
        text = page.content.decode()
        assert "Your account has no role yet" in text
        assert "new-one" in text
        assert "Ask Ada Lovelace:" in text


def test_who_has_a_role_but_not_the_right_is_told_which_one_is_missing(campaign: Any, annotator: Client) -> None:
    page = annotator.post(f"/campaigns/{campaign.name}/do/retrain/")
    assert page.status_code == 403
    assert "This needs the permission training.start_retraining" in page.content.decode()
