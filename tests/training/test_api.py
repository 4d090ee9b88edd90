"""Training over HTTP: who may do what, and refusals with their status and sentence."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.training.world import made_by, make_model, policy
from thawloop.registry.selectors import champion
from thawloop.registry.services import promote
from thawloop.training.models import Retraining

if TYPE_CHECKING:
    from rest_framework.test import APIClient

    from thawloop.campaigns.models import Campaign

pytestmark = pytest.mark.django_db


@pytest.fixture
def as_role(db: None) -> "Callable[[str], APIClient]":
    """`as_role("lead")`: a client of a user in that role."""
    from django.contrib.auth.models import Group, User
    from rest_framework.test import APIClient

    def make(role: str) -> "APIClient":
        user = User.objects.create_user(username=role)
        user.groups.add(Group.objects.get(name=role))
        client = APIClient()
        client.force_authenticate(user)
        return client

    return make


def test_lead_starts_one_retraining_and_a_second_is_a_conflict(labelled: "Campaign", as_role) -> None:
    lead = as_role("lead")
    answer = lead.post("/api/retrainings/", {"campaign": "site", "reason": "enough new labels"}, format="json")
    assert answer.status_code == 201
    assert (answer.json()["state"], answer.json()["requested_by"], answer.json()["number"]) == ("releasing", "lead", 1)
    again = lead.post("/api/retrainings/", {"campaign": "site", "reason": "again"}, format="json")
    assert again.status_code == 409
    assert "Retraining 1 of `site` is running" in again.json()["detail"]
    ended = lead.post(f"/api/retrainings/{answer.json()['id']}/cancel/", {"reason": "a mistake"}, format="json")
    assert (ended.status_code, ended.json()["state"], ended.json()["error"]) == (200, "cancelled", "a mistake")
    retried = lead.post(f"/api/retrainings/{answer.json()['id']}/retry/", format="json")
    assert (retried.status_code, retried.json()["state"]) == (200, "releasing")


def test_unlabelled_campaign_is_a_bad_request_with_the_remedy(campaign: "Campaign", as_role) -> None:
    answer = as_role("lead").post("/api/retrainings/", {"campaign": "site", "reason": "x"}, format="json")
    assert answer.status_code == 400
    assert "No tile of the train regions is labelled" in answer.json()["detail"]


@pytest.mark.parametrize("role", ["annotator", "reviewer"])
def test_annotators_and_reviewers_look_but_do_not_touch(labelled: "Campaign", as_role, role: str) -> None:
    client = as_role(role)
    version = make_model(labelled, 1)
    row = policy(labelled)
    assert client.get("/api/retrainings/").status_code == 200
    assert client.get(f"/api/models/{version.name}/").json()["checksum"] == version.checksum
    assert client.get(f"/api/policies/{row.pk}/explain/").json()["due"] in (True, False)
    assert client.post("/api/retrainings/", {"campaign": "site", "reason": "x"}, format="json").status_code == 403
    assert client.post(f"/api/models/{version.name}/promote/", {"reason": "x"}, format="json").status_code == 403
    assert client.patch(f"/api/policies/{row.pk}/", {"enabled": False}, format="json").status_code == 403
    assert not Retraining.objects.exists()
    assert champion(labelled) is None


def test_nobody_reads_without_an_account(campaign: "Campaign", client) -> None:
    for path in ("policies", "retrainings", "runs", "models", "evaluations", "promotions"):
        assert client.get(f"/api/{path}/").status_code == 401


def test_lead_promotes_and_rolls_back_with_a_reason(campaign: "Campaign", as_role) -> None:
    lead = as_role("lead")
    first, second = make_model(campaign, 1), make_model(campaign, 2)
    promote(first, reason="x")
    without = lead.post(f"/api/models/{second.name}/promote/", {}, format="json")
    assert (without.status_code, list(without.json())) == (400, ["reason"])
    answer = lead.post(f"/api/models/{second.name}/promote/", {"reason": "better on the map"}, format="json")
    assert answer.status_code == 201
    assert {**answer.json(), "id": 0, "created": ""} == {
        "id": 0,
        "campaign": "site",
        "kind": "manual",
        "previous": first.name,
        "champion": second.name,
        "reason": "better on the map",
        "actor": "lead",
        "created": "",
    }
    assert lead.get(f"/api/models/{second.name}/").json()["aliases"] == ["champion"]
    again = lead.post(f"/api/models/{second.name}/promote/", {"reason": "x"}, format="json")
    assert again.status_code == 409
    back = lead.post(f"/api/models/{second.name}/rollback/", {"reason": "worse after all"}, format="json")
    assert (back.status_code, back.json()["champion"]) == (201, first.name)


def test_policy_is_made_changed_and_explained(labelled: "Campaign", as_role) -> None:
    lead = as_role("lead")
    made = lead.post("/api/policies/", {"campaign": "site", "min_new_tiles": 30}, format="json")
    assert made.status_code == 201
    url = f"/api/policies/{made.json()['id']}/"
    assert "to go" in " ".join(lead.get(f"{url}explain/").json()["reasons"])
    assert lead.patch(url, {"min_new_tiles": 5}, format="json").json()["min_new_tiles"] == 5
    assert lead.get(f"{url}explain/").json()["due"]
    ahead = lead.get(f"{url}outlook/").json()
    assert ahead["can_start"]
    assert ahead["tiles"]["test"] == 6


@pytest.mark.parametrize("path", ["retrainings", "models", "runs", "evaluations", "promotions", "policies"])
def test_lists_cost_the_same_number_of_queries_however_long(
    labelled: "Campaign", as_role, path: str, django_assert_max_num_queries
) -> None:
    for number in range(1, 5):
        retraining = Retraining.objects.create(campaign=labelled, number=number, reason="x", state="done")
        promote(made_by(retraining, 0.5), reason="x", request_predictions_now=False)
    policy(labelled)
    lead = as_role("lead")
    with django_assert_max_num_queries(6):
        answer = lead.get(f"/api/{path}/")
    assert answer.status_code == 200
