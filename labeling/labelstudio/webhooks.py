"""Webhooks are hints: only ids are stored, and what changed is then read from Label Studio itself.

Label Studio shows a webhook's headers, our secret among them, to all its users: anybody there can send a hint. Its
content is never trusted, and equal or many hints cost no more than one. `sync` finds what hints missed.
"""

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from django.db import OperationalError, transaction
from django.utils import timezone

from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import BadWebhook, WrongSecret
from labeling.labelstudio.projects import SECRET_HEADER
from labeling.labelstudio.pull import OVERLAP, Pull, SyncReport
from labeling.labelstudio.secrets import webhook_secret
from labeling.models import Annotation, WebhookEvent
from thawloop.campaigns.models import Campaign
from thawloop.core.context import acting
from thawloop.core.errors import Refused
from thawloop.core.jobs import enqueue
from thawloop.core.jsonable import clean_json
from thawloop.core.locks import exclusive

log = structlog.get_logger(__name__)
Json = dict[str, Any]

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_NUMBERS = 10_000  # named by one hint; a sync finds the others
MAX_WAITING = 1_000  # hints of a campaign; a sync finds what further ones would name
MAX_TASKS = 500  # read by their numbers; rather than more, all that changed lately are read
ACTOR = "label studio"


def receive_webhook(campaign: Campaign, body: bytes, headers: Mapping[str, str]) -> WebhookEvent:
    """Store a hint of Label Studio, once while it waits, and have it processed soon.

    Args:
        campaign: Whose project it says it is from.
        body: The request's body.
        headers: Its headers, with the secret that we gave Label Studio.

    Raises:
        WrongSecret: The secret is missing or wrong.
        BadWebhook: The body is not a JSON object with an action.
    """
    secret = webhook_secret()
    if not secret or not hmac.compare_digest(headers.get(SECRET_HEADER, "").encode(), secret.encode()):
        raise WrongSecret(f"The header {SECRET_HEADER} does not hold our secret.")
    try:
        payload = clean_json(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise BadWebhook(f"The body is not JSON: {str(error)[:200]}.") from error
    action = payload.get("action") if isinstance(payload, dict) else None
    if not isinstance(action, str) or not action:
        raise BadWebhook("The body is not an object with an `action`.")
    hint = WebhookEvent(campaign=campaign, action=action[:50], payload=_numbers(payload))
    waiting = WebhookEvent.objects.filter(campaign=campaign, processed__isnull=True)
    with transaction.atomic():
        event = waiting.filter(action=hint.action, payload=hint.payload).first()
        if event is None and waiting.count() >= MAX_WAITING:
            event = waiting.first()
        if event is None:
            hint.save()
        enqueue_processing(campaign)
    return event or hint


def enqueue_processing(campaign: Campaign) -> None:
    """Have a worker process the campaign's stored hints."""
    enqueue(
        "labeling.labelstudio.jobs.process_events", key=f"events:campaign:{campaign.pk}", args={"campaign": campaign.pk}
    )


def process_pending_events(campaign: Campaign, *, go_on: Callable[[], bool] = lambda: True) -> int:
    """Process the campaign's stored hints, all that wait at once. Processing one twice changes nothing.

    One that cannot be processed keeps the reason; the others go on. They wait while a sync reads the project.

    Args:
        campaign: Whose hints.
        go_on: Asked before each round whether to go on.

    Returns:
        How many were processed.
    """
    count = 0
    while go_on():
        with exclusive(f"sync:{campaign.pk}", wait=False) as ours:
            waiting = WebhookEvent.objects.filter(campaign=campaign, processed__isnull=True).order_by("id")
            events = list(waiting[:MAX_WAITING]) if ours else []
            if not events:
                return count
            _follow(campaign, events)
            count += len(events)
    return count


def _follow(campaign: Campaign, events: Sequence[WebhookEvent]) -> None:
    campaign.refresh_from_db()
    tasks: set[int] = set()
    leading = []
    for event in events:
        event.error = ""
        try:
            named = _tasks_of(campaign, event)
        except Refused as error:
            event.error = str(error)
        else:
            tasks |= named
            leading += [event] if named else []
    problem = _read(campaign, tasks) if tasks else ""
    for event in leading:
        event.error = problem
    now = timezone.now()
    for event in events:
        event.processed = now
        if event.error:
            log.warning("webhook not processed", webhook=event.pk, action=event.action, why=event.error)
    WebhookEvent.objects.bulk_update(events, ["processed", "error"], batch_size=200)


def _read(campaign: Campaign, tasks: set[int]) -> str:
    """Read some tasks from Label Studio; returns what went wrong. What is not read now, the next sync reads."""
    try:
        with acting(name=ACTOR), Client() as client:
            pull = Pull(campaign, client, SyncReport())
            if len(tasks) > MAX_TASKS and campaign.ls_synced_until is not None:
                pull.changes(campaign.ls_synced_until - OVERLAP)
            elif len(tasks) <= MAX_TASKS:
                pull.some(tasks)
            pull.finish()
    except OperationalError:
        raise  # the database failed: the hints wait
    except Refused as error:
        return str(error)
    except Exception as error:
        log.exception("webhooks could not be processed", campaign=campaign.name)
        return f"{type(error).__name__}: {error}"[:2000]
    return " ".join(pull.problems)[:2000]


def _tasks_of(campaign: Campaign, event: WebhookEvent) -> set[int]:
    """Numbers of the tasks that a hint is about."""
    hint = event.payload
    if isinstance(hint.get("project"), dict):  # stored whole, by an earlier version
        hint = _numbers(hint)
    if hint.get("project") != campaign.ls_project_id or campaign.ls_project_id is None:
        raise BadWebhook(f"It is from another project than {campaign.ls_project_id}, campaign {campaign.name}'s.")
    known = Annotation.objects.filter(
        task__campaign=campaign,
        task__ls_task_id__isnull=False,
        ls_generation=campaign.ls_generation,
        ls_annotation_id__in=hint["annotations"],
    )
    return {*hint["tasks"], *known.values_list("task__ls_task_id", flat=True)}


def _numbers(payload: Json) -> Json:
    """All that is kept of a webhook: the numbers of its project, tasks and annotations.

    Label Studio puts one or several under the same singular key, and names of deleted ones only their numbers.
    """
    project = payload.get("project")
    annotations = [*_objects(payload.get("annotation")), *_objects(payload.get("annotations"))]
    tasks = [*_objects(payload.get("task")), *_objects(payload.get("tasks"))]
    of_annotations = [annotation["task"] for annotation in annotations if _is_number(annotation.get("task"))]
    return {
        "project": project.get("id") if isinstance(project, dict) and _is_number(project.get("id")) else None,
        "tasks": sorted({*_ids(tasks), *of_annotations})[:MAX_NUMBERS],
        "annotations": sorted(set(_ids(annotations)))[:MAX_NUMBERS],
    }


def _objects(value: Any) -> list[Json]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _ids(items: Sequence[Json]) -> list[int]:
    return [item["id"] for item in items if _is_number(item.get("id"))]


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31
