"""Webhooks: stored at once, processed in order, one bad one never in the way of the others."""

import json

import pytest
from django.test import Client, override_settings

from labeling.models import Annotation, AnnotationTask, WebhookEvent
from labeling.selectors import current_labels
from labeling.services import process_event, process_pending_events
from labeling.services.webhooks import MAX_BODY_BYTES
from tests.labeling.build import SQUARE, annotation, build_campaign, build_tasks, polygon
from thawloop.core.models import Job

SECRET = "a-long-secret"


@pytest.fixture(autouse=True)
def secret(settings):
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


def test_a_webhook_is_stored_as_it_came_and_its_processing_enqueued(task):
    body = created(task, polygon(SQUARE))
    assert post(body).status_code == 202
    event = WebhookEvent.objects.get()
    assert (event.payload, event.action, event.processed) == (body, "ANNOTATION_CREATED", None)
    job = Job.objects.get()
    assert (job.function, job.key) == ("labeling.jobs.process_events", f"events:campaign:{task.campaign_id}")
    assert not Annotation.objects.exists()


def test_processing_makes_annotations_and_labels(task):
    post(created(task, polygon(SQUARE)))
    assert process_pending_events(task.campaign) == 1
    assert current_labels(task.campaign).count() == 1
    assert WebhookEvent.objects.get().error == ""


@pytest.mark.parametrize("secret", [None, "", "wrong", "a-long-secre\u00fc"])
def test_without_our_secret_nothing_is_stored(task, secret):
    assert post(created(task), secret=secret).status_code == 403
    assert not WebhookEvent.objects.exists()


@override_settings(THAWLOOP_WEBHOOK_SECRET="")
def test_without_a_secret_set_nobody_gets_in(task):
    assert post(created(task), secret="").status_code == 403


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
    event = WebhookEvent.objects.get()
    assert event.payload["project"] == {"id": 6, "x": None}
    assert "\0" not in event.action


def test_one_that_fails_keeps_its_error_and_the_next_is_processed(task):
    post({"action": "ANNOTATION_CREATED", "annotation": {"id": "x"}, "project": {"id": 6}, "task": {"id": 1}})
    post({"action": "ANNOTATION_CREATED", "annotation": annotation(9), "project": {"id": 99}})
    post({"action": "ANNOTATION_CREATED", "project": {"id": 6}})
    post(
        {"action": "ANNOTATION_CREATED", "annotation": annotation(9) | {"updated_at": "x"}, "project": {"id": 6}}
        | {"task": {"id": 1, "data": {"platform_task_uuid": str(task.pk)}}}
    )
    post(created(task, polygon(SQUARE)))
    assert process_pending_events(task.campaign) == 5
    errors = list(WebhookEvent.objects.order_by("id").values_list("error", flat=True))
    assert errors[0] == ""  # a task that is not ours is nobody's error
    assert "another project" in errors[1]
    assert "names no annotation" in errors[2]
    assert "usable `updated_at`" in errors[3]
    assert errors[4] == ""
    assert current_labels(task.campaign).count() == 1


def test_processing_an_event_twice_changes_nothing(task):
    post(created(task, polygon(SQUARE)))
    event = WebhookEvent.objects.get()
    process_event(event)
    process_event(event)
    assert Annotation.objects.count() == 1


def test_bulk_creation_puts_lists_under_singular_keys(campaign):
    tasks = build_tasks(campaign, 2)
    for number, task in enumerate(tasks, start=1):
        task.ls_task_id, task.state = number, "open"
        task.save()
    events = [created(task, polygon(SQUARE), identifier=number) for number, task in enumerate(tasks, start=10)]
    body = {
        "action": "ANNOTATIONS_CREATED",
        "annotation": [event["annotation"] for event in events],
        "task": [event["task"] for event in events],
        "project": {"id": 6},
    }
    post(body)
    process_pending_events(campaign)
    assert {row.task for row in Annotation.objects.all()} == set(tasks)


def test_deletions_name_only_ids(task):
    post(created(task, polygon(SQUARE)))
    post({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 7}, {"id": 999}], "project": {"id": 6}})
    process_pending_events(task.campaign)
    assert not current_labels(task.campaign).exists()
    assert Annotation.objects.filter(kind="deleted").count() == 1


def test_a_deleted_task_is_withdrawn(task):
    post(created(task, polygon(SQUARE)))
    post({"action": "TASKS_DELETED", "tasks": [{"id": task.ls_task_id}], "project": {"id": 6}})
    process_pending_events(task.campaign)
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.WITHDRAWN


def test_a_task_that_a_killed_push_did_not_note_is_noted_by_its_annotation(campaign):
    (task,) = build_tasks(campaign, 1)
    task.ls_task_id = 41
    post(created(task, polygon(SQUARE)))
    process_pending_events(campaign)
    task.refresh_from_db()
    assert (task.ls_task_id, task.state) == (41, AnnotationTask.State.SUBMITTED)


def test_another_campaigns_tasks_cannot_be_annotated(campaign):
    (task,) = build_tasks(build_campaign("other"), 1)
    task.ls_task_id = 1
    post(created(task, polygon(SQUARE)))
    process_pending_events(campaign)
    assert not Annotation.objects.exists()
