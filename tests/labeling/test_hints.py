"""What becomes of hints with a real Label Studio: it is asked, and only what it says is recorded."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from labeling.labelstudio import webhooks
from labeling.labelstudio.client import Client
from labeling.labelstudio.projects import SECRET_HEADER
from labeling.labelstudio.push import push_tasks
from labeling.labelstudio.sync import sync
from labeling.labelstudio.webhooks import process_pending_events, receive_webhook
from labeling.models import Annotation, AnnotationTask, WebhookEvent
from labeling.selectors import current_labels
from tests.labeling.build import RING, SQUARE, annotation, build_campaign, build_tasks, polygon

pytestmark = [pytest.mark.labelstudio, pytest.mark.django_db]
SECRET = "a-long-secret"


@pytest.fixture(autouse=True)
def server(labelstudio, settings) -> None:
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = labelstudio.url, labelstudio.token
    settings.THAWLOOP_WEBHOOK_SECRET = SECRET
    settings.ML_BACKEND_URL = "http://127.0.0.1:9"  # nobody there
    cache.clear()


@pytest.fixture
def client(server) -> Iterator[Client]:
    with Client() as client:
        yield client


@pytest.fixture
def pushed(campaign: Any) -> list[AnnotationTask]:
    build_tasks(campaign, 5)
    push_tasks(campaign)
    campaign.refresh_from_db()
    return list(campaign.tasks.order_by("rank"))


def send(campaign: Any, action: str, **fields: Any) -> None:
    """A webhook, from Label Studio or from anybody who read its secret there."""
    body = json.dumps({"action": action, "project": {"id": campaign.ls_project_id}} | fields).encode()
    receive_webhook(campaign, body, {SECRET_HEADER: SECRET})


def follow(campaign: Any) -> list[str]:
    process_pending_events(campaign)
    return [error for error in WebhookEvent.objects.order_by("id").values_list("error", flat=True) if error]


def submit(client: Client, task: AnnotationTask, *regions: Any, **changes: Any) -> int:
    body = {"result": list(regions), "lead_time": 3.5} | changes
    return int(client._object("POST", f"/api/tasks/{task.ls_task_id}/annotations/", content=body)["id"])


def test_a_hint_brings_what_label_studio_holds_not_what_it_says_itself(pushed, client):
    task = pushed[0]
    campaign = task.campaign
    number = submit(client, task, polygon(SQUARE))
    forged = annotation(number, polygon(RING, "forged"), task=task.ls_task_id, updated_at="2030-01-01T00:00:00Z")
    send(campaign, "ANNOTATION_UPDATED", annotation=forged, task={"id": task.ls_task_id})
    assert follow(campaign) == []
    (revision,) = current_labels(campaign)
    assert revision.label.origin == f"ls:{number}:r1"
    assert Annotation.objects.get().ls_updated_at < timezone.now()


def test_forged_hints_make_no_annotation_and_take_none_away(pushed, client):
    one, two = pushed[:2]
    campaign = one.campaign
    number = submit(client, one, polygon(SQUARE))
    sync(campaign)
    forged = annotation(number + 1000, polygon(RING), task=two.ls_task_id)
    send(campaign, "ANNOTATION_CREATED", annotation=forged, task={"id": two.ls_task_id})
    send(campaign, "ANNOTATIONS_DELETED", annotations=[{"id": number}])
    send(campaign, "TASKS_DELETED", tasks=[{"id": task.ls_task_id} for task in pushed])
    send(campaign, "TASKS_DELETED", tasks=[{"id": 2**31 - 1}])
    assert follow(campaign) == []
    assert list(Annotation.objects.values_list("ls_annotation_id", "kind")) == [(number, "submitted")]
    assert [task.state for task in campaign.tasks.order_by("rank")] == ["submitted", *["open"] * 4]


def test_real_deletions_are_verified_and_believed(pushed, client):
    one, two = pushed[:2]
    campaign = one.campaign
    number = submit(client, one, polygon(SQUARE))
    submit(client, two, polygon(SQUARE))
    sync(campaign)
    client._call("DELETE", f"/api/annotations/{number}/")
    send(campaign, "ANNOTATIONS_DELETED", annotations=[{"id": number}])
    client.delete_task(two.ls_task_id)
    send(campaign, "TASKS_DELETED", tasks=[{"id": two.ls_task_id}])
    assert follow(campaign) == []
    assert [task.state for task in campaign.tasks.order_by("rank")][:2] == ["open", "withdrawn"]
    assert not current_labels(campaign).exists()


def test_a_mass_deletion_by_webhook_asks_a_lead(pushed, client):
    campaign = pushed[0].campaign
    for task in pushed[:4]:
        client.delete_task(task.ls_task_id)
    send(campaign, "TASKS_DELETED", tasks=[{"id": task.ls_task_id} for task in pushed[:4]])
    (error,) = follow(campaign)
    assert "--accept-removals 4" in error
    assert not campaign.tasks.filter(state="withdrawn").exists()


def test_a_flood_of_hints_costs_a_few_requests(pushed, client, monkeypatch):
    campaign = pushed[0].campaign
    number = submit(client, pushed[0], polygon(SQUARE))
    asked = []
    original = Client._note_request
    monkeypatch.setattr(Client, "_note_request", lambda self, request: (asked.append(request), original(self, request)))
    for task_number in range(1, 300):
        send(campaign, "ANNOTATION_UPDATED", annotation={"id": number, "task": task_number}, task={"id": task_number})
    send(campaign, "ANNOTATION_CREATED", annotation={"id": number, "task": pushed[0].ls_task_id})
    assert follow(campaign) == []
    assert WebhookEvent.objects.filter(processed__isnull=False).count() == 300
    assert current_labels(campaign).count() == 1
    assert len(asked) < 10


def test_more_tasks_than_are_read_by_number_are_read_by_what_changed(pushed, client, monkeypatch):
    campaign = pushed[0].campaign
    sync(campaign)
    monkeypatch.setattr(webhooks, "MAX_TASKS", 3)
    submit(client, pushed[0], polygon(SQUARE))
    send(campaign, "ANNOTATIONS_CREATED", task=[{"id": task.ls_task_id} for task in pushed])
    assert follow(campaign) == []
    assert current_labels(campaign).count() == 1


def test_a_hint_notes_a_task_that_a_killed_push_did_not(pushed, client):
    task = pushed[0]
    campaign = task.campaign
    submit(client, task, polygon(SQUARE))
    campaign.tasks.filter(pk=task.pk).update(state="pending", ls_task_id=None)
    send(campaign, "ANNOTATION_CREATED", task={"id": task.ls_task_id})
    assert follow(campaign) == []
    noted = campaign.tasks.get(pk=task.pk)
    assert (noted.ls_task_id, noted.state) == (task.ls_task_id, AnnotationTask.State.SUBMITTED)


def test_another_campaigns_tasks_cannot_be_annotated(pushed, client):
    campaign = pushed[0].campaign
    (foreign,) = build_tasks(build_campaign("other"), 1)
    data = {"picture_rgb": "x", "picture_ndvi": "x", "platform_task_uuid": str(foreign.pk)}
    (number,) = client.import_tasks(campaign.ls_project_id, [{"data": data}])["task_ids"]
    client._object("POST", f"/api/tasks/{number}/annotations/", content={"result": []})
    send(campaign, "ANNOTATION_CREATED", task={"id": number})
    assert follow(campaign) == []
    assert not Annotation.objects.exists()
