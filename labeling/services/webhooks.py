"""Webhooks: stored as they come, made sense of later. They are hints; `sync` finds what they missed."""

import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import OperationalError, transaction
from django.utils import timezone

from labeling.errors import BadWebhook, WrongSecret
from labeling.labelstudio.cleaning import clean_json
from labeling.labelstudio.people import known_people
from labeling.models import Annotation, AnnotationTask, Campaign, WebhookEvent
from labeling.services.annotations import record_annotation, record_deletion, withdraw_task
from labeling.services.projects import SECRET_HEADER
from labeling.services.tasks import TASK_ID
from thawloop.core.context import acting
from thawloop.core.errors import Refused
from thawloop.core.services import enqueue

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 32 * 1024 * 1024
ACTOR = "label studio"


def receive_webhook(campaign: Campaign, body: bytes, headers: Mapping[str, str]) -> WebhookEvent:
    """Store a webhook of Label Studio and have it processed soon.

    Args:
        campaign: Whose project it says it is from.
        body: The request's body.
        headers: Its headers, with the secret that we gave Label Studio.

    Raises:
        WrongSecret: The secret is missing or wrong.
        BadWebhook: The body is no JSON object with an action.
    """
    secret = settings.THAWLOOP_WEBHOOK_SECRET
    if not secret or not hmac.compare_digest(headers.get(SECRET_HEADER, "").encode(), secret.encode()):
        raise WrongSecret(f"The header {SECRET_HEADER} does not hold our secret.")
    try:
        payload = clean_json(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise BadWebhook(f"The body is not JSON: {str(error)[:200]}.") from error
    action = payload.get("action") if isinstance(payload, dict) else None
    if not isinstance(action, str) or not action:
        raise BadWebhook("The body is no object with an `action`.")
    with transaction.atomic():
        event = WebhookEvent.objects.create(campaign=campaign, action=action[:50], payload=payload)
        enqueue_processing(campaign)
    return event


def enqueue_processing(campaign: Campaign) -> None:
    """Have a worker process the campaign's stored webhooks."""
    enqueue("labeling.jobs.process_events", key=f"events:campaign:{campaign.pk}", args={"campaign": campaign.pk})


def process_pending_events(campaign: Campaign, *, go_on: Callable[[], bool] = lambda: True) -> int:
    """Process the campaign's stored webhooks in the order they came, each in its own transaction.

    One that fails keeps its error and does not hold up the others; the reconciler brings what it would have brought.

    Args:
        campaign: Whose webhooks.
        go_on: Asked before each whether to go on.

    Returns:
        How many were processed.
    """
    count = 0
    while go_on() and _process_next(campaign):
        count += 1
    return count


def process_event(event: WebhookEvent) -> None:
    """Do what a stored webhook says. Doing it twice changes nothing.

    Raises:
        BadWebhook: It does not fit the campaign, or misses what its action needs.
        BadAnnotation: An annotation in it has no usable id or time.
    """
    campaign, payload = event.campaign, event.payload
    if campaign is None:
        raise BadWebhook("The campaign it was meant for is gone.")
    project = payload.get("project")
    if not isinstance(project, dict) or project.get("id") != campaign.ls_project_id:
        raise BadWebhook(f"It is from another project than {campaign.ls_project_id}, campaign {campaign.name}'s.")
    handler = _HANDLERS.get(event.action)
    if handler is None:
        log.info("webhook ignored", action=event.action, campaign=campaign.name)
        return
    with acting(name=ACTOR):
        handler(campaign, payload)


def find_task(campaign: Campaign, found: dict[str, Any]) -> AnnotationTask | None:
    """Our task of a task in Label Studio. One that a killed push had not noted yet is noted now."""
    identifier = (found.get("data") or {}).get(TASK_ID)
    if not isinstance(identifier, str) or type(found.get("id")) is not int:
        return None
    try:
        task = campaign.tasks.filter(pk=UUID(identifier)).first()
    except ValueError:
        return None
    if task is not None and task.state == AnnotationTask.State.PENDING:
        campaign.tasks.filter(pk=task.pk, state=AnnotationTask.State.PENDING).update(
            ls_task_id=found["id"], state=AnnotationTask.State.OPEN
        )
        task.refresh_from_db()
    return task


def _process_next(campaign: Campaign) -> bool:
    waiting = WebhookEvent.objects.filter(campaign=campaign, processed__isnull=True).order_by("id")
    with transaction.atomic():
        event = waiting.select_for_update(of=("self",)).first()
        if event is None:
            return False
        try:
            with transaction.atomic():
                process_event(event)
        except OperationalError:
            raise  # the database: neither the event's fault nor its end
        except Refused as error:
            event.error = str(error)
        except Exception as error:
            log.exception("a webhook could not be processed", webhook=event.pk)
            event.error = f"{type(error).__name__}: {error}"[:2000]
        if event.error:
            log.warning("webhook not processed", webhook=event.pk, action=event.action, why=event.error)
        event.processed = timezone.now()
        event.save(update_fields=["processed", "error"])
    return True


def _annotation_changed(campaign: Campaign, payload: dict[str, Any]) -> None:
    annotations, tasks = _as_list(payload.get("annotation")), _as_list(payload.get("task"))
    by_id = {task.get("id"): task for task in tasks}
    people = known_people(annotations)
    for annotation in annotations:
        # A single annotation comes with its task; bulk ones name theirs.
        found = by_id.get(annotation.get("task")) or (tasks[0] if len(tasks) == 1 else None)
        task = find_task(campaign, found) if found else _known_task(campaign, annotation.get("task"))
        if task is None:
            log.info("annotation of a task that is not ours", campaign=campaign.name, annotation=annotation.get("id"))
            continue
        record_annotation(task, annotation, people=people)


def _annotations_deleted(campaign: Campaign, payload: dict[str, Any]) -> None:
    for identifier in _ids(payload.get("annotations")):
        known = Annotation.objects.filter(task__campaign=campaign, ls_annotation_id=identifier).select_related("task")
        if (annotation := known.first()) is not None:
            record_deletion(annotation.task, identifier)


def _tasks_deleted(campaign: Campaign, payload: dict[str, Any]) -> None:
    for identifier in _ids(payload.get("tasks")):
        if (task := _known_task(campaign, identifier)) is not None:
            withdraw_task(task)


_HANDLERS: dict[str, Callable[[Campaign, dict[str, Any]], None]] = {
    "ANNOTATION_CREATED": _annotation_changed,
    "ANNOTATION_UPDATED": _annotation_changed,
    "ANNOTATIONS_CREATED": _annotation_changed,
    "ANNOTATIONS_DELETED": _annotations_deleted,
    "TASKS_DELETED": _tasks_deleted,
}


def _known_task(campaign: Campaign, identifier: Any) -> AnnotationTask | None:
    return campaign.tasks.filter(ls_task_id=identifier).first() if type(identifier) is int else None


def _as_list(value: Any) -> list[dict[str, Any]]:
    """Label Studio puts one or several under the same singular key."""
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, dict) for item in items):
        raise BadWebhook("It names no annotation or task.")
    return items


def _ids(value: Any) -> list[int]:
    return [item["id"] for item in _as_list(value) if type(item.get("id")) is int]
