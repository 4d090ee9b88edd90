"""Webhooks: only their numbers are stored, many or equal ones cost no more than one, and nothing else is believed."""

import json

import pytest
from django.test import Client

from labeling.labelstudio import webhooks
from labeling.labelstudio.secrets import ml_backend_secret, rotate_secrets, webhook_secret
from labeling.labelstudio.webhooks import MAX_BODY_BYTES, process_pending_events
from labeling.models import WebhookEvent
from tests.labeling.build import SQUARE, annotation, polygon
from thawloop.core.models import Job

pytestmark = pytest.mark.usefixtures("neighbour")
SECRET = "a-long-secret"


@pytest.fixture(autouse=True)
def our_secret(settings):
    settings.THAWLOOP_WEBHOOK_SECRET = SECRET


@pytest.fixture
def campaign(campaign):
    campaign.ls_project_id = 6
    campaign.save()
    return campaign


def post(body, *, campaign="peel", secret=SECRET):
    data = body if isinstance(body, bytes) else json.dumps(body)
    headers = {"X-ThawLoop-Secret": secret} if secret is not None else {}
    return Client().post(f"/hooks/labelstudio/{campaign}", data, content_type="application/json", headers=headers)


def created(task, *regions, identifier=7, **changes):
    payload = annotation(identifier, *regions, task=task.ls_task_id, **changes)
    found = {"id": task.ls_task_id, "data": {"platform_task_uuid": str(task.pk)}}
    return {"action": "ANNOTATION_CREATED", "annotation": payload, "task": found, "project": {"id": 6}}


def hint(project=6, tasks=(), annotations=()):
    return {"project": project, "tasks": list(tasks), "annotations": list(annotations)}


def test_the_numbers_of_a_webhook_are_stored_and_their_processing_enqueued(task):
    assert post(created(task, polygon(SQUARE))).status_code == 202
    event = WebhookEvent.objects.get()
    assert (event.action, event.processed) == ("ANNOTATION_CREATED", None)
    assert event.payload == hint(tasks=[task.ls_task_id], annotations=[7])
    job = Job.objects.get()
    assert (job.function, job.key) == (
        "labeling.labelstudio.jobs.process_events",
        f"events:campaign:{task.campaign_id}",
    )
    assert not task.annotations.exists()


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ({"annotation": [{"id": 3, "task": 8}, {"id": 2}], "task": [{"id": 9}]}, hint(6, [8, 9], [2, 3])),
        ({"annotations": [{"id": 7}, {"id": 7}]}, hint(6, [], [7])),
        ({"tasks": [{"id": 5}]}, hint(6, [5])),
        ({"task": None, "annotation": "x", "annotations": [7, {"id": "7"}, {"id": True}, {"id": -1}]}, hint(6)),
        ({"tasks": [{"id": 2**70}, {"id": 4, "data": {"secret": "x"}}]}, hint(6, [4])),
        ({"project": None}, hint(None)),
        ({"project": {"id": "6"}}, hint(None)),
    ],
)
def test_whatever_a_webhook_holds_only_its_numbers_are_kept(campaign, body, stored):
    assert post({"action": "X", "project": {"id": 6}} | body).status_code == 202
    assert WebhookEvent.objects.get().payload == stored


@pytest.mark.parametrize("given", [None, "", "wrong", "a-long-secre\u00fc", SECRET[:-1], SECRET + "x"])
def test_without_our_secret_nothing_is_stored(task, given):
    assert webhook_secret() == SECRET
    assert post(created(task), secret=given).status_code == 403
    assert not WebhookEvent.objects.exists()
    assert post(created(task), secret=SECRET).status_code == 202


@pytest.mark.parametrize("given", [None, "", SECRET])
def test_without_a_secret_set_nobody_gets_in(task, settings, given):
    settings.THAWLOOP_WEBHOOK_SECRET = ""
    assert post(created(task), secret=given).status_code == 403


def test_rotated_secrets_replace_the_old_ones_and_neither_opens_the_others_door(task, settings):
    settings.THAWLOOP_ML_BACKEND_SECRET = "another-secret"
    assert (webhook_secret(), ml_backend_secret()) == (SECRET, "another-secret")
    seen = {SECRET, "another-secret"}
    for _ in range(2):
        rotate_secrets("an annotator left")
        new = {webhook_secret(), ml_backend_secret()}
        assert len(new) == 2
        assert not new & seen
        seen |= new
    assert post(created(task)).status_code == 403
    assert post(created(task), secret=ml_backend_secret()).status_code == 403
    assert post(created(task), secret=webhook_secret()).status_code == 202


def test_the_ml_backends_secret_differs_from_the_webhooks_without_being_set(db, settings):
    settings.THAWLOOP_ML_BACKEND_SECRET = ""
    assert len({webhook_secret(), ml_backend_secret(), settings.SECRET_KEY}) == 3
    assert len(ml_backend_secret()) == 64


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"action": 7}',
        b"{",
        b"[" * 100_000,
        b'{"action": "X", "n": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
    ],
)
def test_bodies_that_are_no_webhook_are_refused(campaign, body):
    assert post(body).status_code == 400
    assert not WebhookEvent.objects.exists()


def test_a_body_that_is_too_large_is_refused(campaign):
    assert post(b" " * (MAX_BODY_BYTES + 1)).status_code == 413


def test_other_methods_and_campaigns_are_refused(campaign):
    assert Client().get("/hooks/labelstudio/peel").status_code == 405
    assert post({"action": "X"}, campaign="other").status_code == 404


def test_what_postgres_cannot_hold_is_replaced(task):
    body = json.dumps(created(task)).replace("ANNOTATION_CREATED", "NEWS").replace('"id": 6', '"id": 6, "x": NaN')
    assert post(body.replace('"NEWS"', '"NE\\u0000WS\\ud800"').encode()).status_code == 202
    assert "\0" not in WebhookEvent.objects.get().action


def test_equal_hints_are_stored_once_while_they_wait_and_no_more_than_so_many(campaign, task, monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_WAITING", 5)
    for _ in range(3):
        assert post(created(task)).status_code == 202
    assert WebhookEvent.objects.count() == 1
    for number in range(100, 120):
        assert post(created(task, identifier=number)).status_code == 202
    assert WebhookEvent.objects.count() == 5
    assert Job.objects.count() == 1


def test_hints_of_another_project_or_to_nothing_of_ours_ask_nobody(campaign, task, monkeypatch):
    monkeypatch.setattr(webhooks, "Client", None)  # whoever asked Label Studio would fail
    for body in (created(task) | {"project": {"id": 99}}, created(task) | {"project": None}):
        post(body)
    post({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 7}], "project": {"id": 6}})
    assert process_pending_events(campaign) == 3
    errors = list(WebhookEvent.objects.order_by("id").values_list("error", flat=True))
    assert ["another project" in error for error in errors] == [True, True, False]


def test_label_studio_away_leaves_its_reason_with_the_hint(campaign, task, settings):
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = "http://127.0.0.1:9", "x"
    post(created(task))
    assert process_pending_events(campaign) == 1
    assert "cannot be reached" in WebhookEvent.objects.get().error


def test_hints_wait_while_a_sync_reads_the_project(campaign, task, monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr(webhooks, "exclusive", lambda *purpose, wait: nullcontext(wait))  # somebody else holds it
    post(created(task))
    assert process_pending_events(campaign) == 0
    assert WebhookEvent.objects.get().processed is None
