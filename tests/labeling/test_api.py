"""Campaigns, tasks, annotations and labels over HTTP, by role."""

import pytest
from django.contrib.auth.models import Group
from rest_framework.test import APIClient

from labeling.labelstudio.submissions import record_payload
from labeling.services import record_deletion
from tests.labeling.build import (
    RING,
    SQUARE,
    annotation,
    build_champion,
    build_prediction,
    build_tasks,
    polygon,
)
from thawloop.campaigns.models import Campaign
from thawloop.core.models import AuditEntry, Job

pytestmark = pytest.mark.usefixtures("neighbour")


@pytest.fixture
def client_of(db, django_user_model):
    def make(role: str | None) -> APIClient:
        client = APIClient()
        if role is not None:
            user = django_user_model.objects.create(username=role)
            user.groups.add(Group.objects.get(name=role))
            client.force_authenticate(user)
        return client

    return make


@pytest.fixture
def labelled(task):
    """The campaign with one annotated tile of two labels."""
    record_payload(task, annotation(7, polygon(SQUARE), polygon(RING, "r2")), people={1: "ann@example.org"})
    return task


LISTS = ["classes", "campaigns", "tasks", "annotations", "labels", "predictions", "batches", "imports"]


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_for_people_with_a_role(client_of, labelled, name):
    assert client_of("annotator").get(f"/api/{name}/").status_code == 200
    assert client_of(None).get(f"/api/{name}/").status_code in (401, 403)


def test_a_campaign_says_what_it_is_made_of(client_of, labelled):
    answer = client_of("annotator").get("/api/campaigns/peel/").json()
    assert answer["classes"] == ["RTS"]
    assert answer["regions"] == {"peel-train": "train"}
    assert [row["name"] for row in answer["modalities"]] == ["rgb", "ndvi"]
    assert answer["tasks"]["submitted"] == 1


def test_only_leads_sync(client_of, campaign):
    assert client_of("annotator").post("/api/campaigns/peel/sync/").status_code == 403
    answer = client_of("lead").post("/api/campaigns/peel/sync/", {"full": True}, format="json")
    assert answer.status_code == 202
    job = Job.objects.get()
    assert (str(job.pk), job.function) == (answer.json()["id"], "labeling.labelstudio.jobs.synchronise")
    assert job.args == {"campaign": campaign.pk, "full": True}


def test_only_leads_ask_for_the_next_tiles(client_of, campaign):
    asked = {"campaign": campaign.name, "count": 3, "seed": 7}
    assert client_of("reviewer").post("/api/batches/", asked, format="json").status_code == 403
    lead = client_of("lead")
    answer = lead.post("/api/batches/", asked, format="json")
    job = Job.objects.get(function="ml_backend.jobs.acquire")
    assert (answer.status_code, answer.json()["id"]) == (202, str(job.pk))
    assert job.args == {"campaign": campaign.pk, "count": 3, "seed": 7}
    for nonsense in ({"count": 0}, {"strategy": "guess"}, {"campaign": "nobody"}, {"seed": -1}):
        assert lead.post("/api/batches/", asked | nonsense, format="json").status_code == 400


@pytest.mark.parametrize("chosen", [{"accept_removals": 12}, {"new_project": True}])
def test_what_a_lead_decides_does_not_get_lost_in_a_sync_that_waits(client_of, campaign, chosen):
    lead = client_of("lead")
    lead.post("/api/campaigns/peel/sync/", {}, format="json")
    assert lead.post("/api/campaigns/peel/sync/", chosen, format="json").status_code == 202
    arguments = [job.args for job in Job.objects.order_by("created")]
    assert arguments == [{"campaign": campaign.pk, "full": False}, {"campaign": campaign.pk, "full": False} | chosen]


def test_a_lead_changes_settings_and_it_is_audited(client_of, campaign):
    lead = client_of("lead")
    answer = lead.patch("/api/campaigns/peel/", {"state": "paused", "score_threshold": 0.5}, format="json")
    assert (answer.status_code, answer.json()["state"]) == (200, "paused")
    entry = AuditEntry.objects.get(action="labeling.change_campaign")
    assert entry.before == {"state": "active", "score_threshold": 0.3}
    assert client_of("reviewer").patch("/api/campaigns/peel/", {"state": "active"}, format="json").status_code == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"score_threshold": 2},
        {"state": "asleep"},
        {"acquisition": {"batch_sise": 3}},
        {"detector": {"x": 1}},
        {"detector": {"anchor": "x"}},
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(client_of, campaign, changes):
    answer = client_of("lead").patch("/api/campaigns/peel/", changes, format="json")
    assert answer.status_code == 400
    assert answer.json()
    assert Campaign.objects.get(pk=campaign.pk).score_threshold == 0.3


def test_labels_are_geojson_of_what_holds(client_of, labelled):
    client = client_of("annotator")
    record_payload(labelled, annotation(7, polygon(SQUARE), minute=1))
    (feature,) = client.get("/api/labels/?campaign=peel&split=train").json()["results"]["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert feature["properties"]["author"] == "ann@example.org"
    (retired,) = client.get("/api/labels/?state=retired").json()["results"]["features"]
    assert retired["properties"]["origin"] == "ls:7:r2"
    history = client.get(f"/api/labels/{retired['id']}/revisions/").json()["features"]
    assert [revision["properties"]["state"] for revision in history] == ["present", "retired"]
    assert client.get("/api/labels/?split=test").json()["results"]["features"] == []


def test_labels_are_found_by_a_box(client_of, labelled):
    client = client_of("annotator")
    west, south, east, north = labelled.tile.geometry.extent
    inside = client.get(f"/api/labels/?campaign=peel&bbox={west},{south},{east},{north}").json()
    assert len(inside["results"]["features"]) == 2
    assert client.get("/api/labels/?bbox=0,0,1,1").json()["results"]["features"] == []
    assert client.get("/api/labels/?bbox=here").status_code == 400


def test_annotations_show_every_state_and_which_is_current(client_of, labelled):
    record_deletion(labelled, 7)
    rows = client_of("annotator").get("/api/annotations/?campaign=peel").json()["results"]
    assert [(row["kind"], row["is_current"]) for row in rows] == [("deleted", True), ("submitted", False)]


@pytest.mark.parametrize("name", ["tasks", "annotations", "labels", "predictions", "batches", "campaigns"])
def test_long_lists_take_as_many_queries_as_short_ones(client_of, campaign, name, django_assert_max_num_queries):
    champion = build_champion(campaign)
    for number, task in enumerate(build_tasks(campaign, 12), start=1):
        task.ls_task_id, task.state = number, "open"
        task.save()
        build_prediction(task.tile, champion)
        record_payload(task, annotation(number, polygon(SQUARE)))
    client = client_of("annotator")
    with django_assert_max_num_queries(10):
        assert client.get(f"/api/{name}/").status_code == 200
