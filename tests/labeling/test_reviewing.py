"""Reviewers decide about labels; what was submitted before does not overrule them, what is submitted later does."""

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from rest_framework.test import APIClient

from labeling.labelstudio.submissions import record_payload
from labeling.services import review_label
from labeling.services.labels import Cause, settle_labels
from labeling.signals import labels_arrived
from tests.labeling.build import RING, SQUARE, annotation, polygon
from thawloop.campaigns.models import LandformClass
from thawloop.core.errors import Refused
from thawloop.core.models import AuditEntry

pytestmark = pytest.mark.usefixtures("neighbour")


@pytest.fixture
def label(task):
    """One of two labels of a tile."""
    record_payload(task, annotation(7, polygon(SQUARE), polygon(RING, "r2")))
    return task.campaign.labels.get(origin="ls:7:r2")


def member(role):
    user = User.objects.create_user(role)
    user.groups.add(Group.objects.get(name=role))
    return user


def review(role, label, **decision):
    client = APIClient()
    client.force_authenticate(member(role))
    return client.post(f"/api/labels/{label.pk}/review/", decision, format="json")


def test_a_reviewer_retires_a_label_with_a_reason_and_an_annotator_may_not(label):
    decision = {"state": "retired", "reason": "a gully"}
    assert review("annotator", label, **decision).status_code == 403
    assert review("reviewer", label, state="retired").status_code == 400
    label.refresh_from_db()
    assert label.current.state == "present"


def test_the_decision_is_a_revision_of_its_own_and_audited(label):
    answer = review("reviewer", label, state="retired", reason="a gully")
    assert answer.status_code == 200
    properties = answer.json()["properties"]
    assert (properties["state"], properties["revision"], properties["author"]) == ("retired", 2, "reviewer")
    assert properties["reason"] == "review: a gully"
    entry = AuditEntry.objects.get(action="labeling.review_label")
    assert (entry.before["state"], entry.after["state"], entry.reason) == ("present", "retired", "a gully")
    assert label.revisions.count() == 2


def test_whoever_listens_for_labels_hears_of_the_decision(label):
    heard = []
    labels_arrived.connect(hear := lambda campaign, **_: heard.append(campaign))
    try:
        review_label(label, state="retired", reason="a gully")
    finally:
        labels_arrived.disconnect(hear)
    assert heard == [label.campaign]


def test_settling_the_same_submission_again_leaves_the_decision_alone_and_a_new_one_overrules_it(label, task):
    review_label(label, state="retired", reason="a gully")
    holding = task.annotations.get()
    from labeling.labelstudio.regions import read_result

    shapes = read_result(holding.result, tile_size=128, classes={"RTS"}).shapes
    settle_labels(task, holding, shapes, Cause(holding))
    label.refresh_from_db()
    assert label.current.state == "retired"
    record_payload(task, annotation(7, polygon(SQUARE), polygon(RING, "r2"), minute=5))
    label.refresh_from_db()
    assert label.current.state == "present"


def test_a_class_of_the_campaign_can_be_given_and_no_other(label):
    other = LandformClass.objects.create(name="ALD")
    with pytest.raises(Refused, match="is not one of campaign"):
        review_label(label, landform_class=other, reason="detachment")
    label.campaign.classes.add(other)
    assert review_label(label, landform_class=other, reason="detachment").landform_class == other


@pytest.mark.parametrize("decision", [{"state": "present", "reason": "as it is"}, {"state": "retired", "reason": " "}])
def test_what_changes_nothing_or_has_no_reason_is_refused(label, decision):
    with pytest.raises(Refused):
        review_label(label, **decision)


def test_reviewers_retire_and_bring_back_in_the_admin(label):
    client = Client()
    client.force_login(member("reviewer"))
    for action, state in (("retire", "retired"), ("bring_back", "present")):
        client.post("/admin/labeling/label/", {"action": action, "_selected_action": [str(label.pk)]})
        label.refresh_from_db()
        assert label.current.state == state
