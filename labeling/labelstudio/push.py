"""Pushing tasks with pre-annotations to Label Studio in acquisition order, each exactly once."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import BigIntegerField, Case, Min, When

from labeling.labelstudio.client import Client
from labeling.labelstudio.config import NOTE, picture_name, shown_modalities
from labeling.labelstudio.errors import LabelStudioUnavailable
from labeling.labelstudio.preannotations import (
    add_missing,
    mark_as_given,
    predictions_of,
    remember,
    show,
    shown_name,
    with_newest_predictions,
)
from labeling.labelstudio.projects import ensure_project
from labeling.models import AnnotationTask
from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Modality
from thawloop.catalog.pictures import picture_url
from thawloop.core.locks import exclusive
from thawloop.core.services import audit

Json = dict[str, Any]

TASK_ID = "platform_task_uuid"  # the key in Label Studio's task data by which we know our tasks
BATCH = 50
CLOCK_SKEW = timedelta(days=1)


def push_tasks(campaign: Campaign) -> int:
    """Put the campaign's PENDING tasks into Label Studio with their pre-annotations; they become OPEN.

    What an earlier push imported but did not note, because it was killed or its answer was lost, is adopted.

    Returns:
        How many tasks became OPEN.

    Raises:
        Refused, ProjectGone, LabelStudioUnavailable: as `ensure_project`.
        LabelStudioUnavailable: Label Studio took fewer tasks or predictions than it was given.
    """
    with exclusive(f"push:{campaign.pk}"), Client() as client:
        project = ensure_project(campaign, client)
        pending = _pending(campaign)
        if not pending:
            return 0
        opened = _adopt(campaign, project, pending, client)
        pending = [task for task in pending if task.ls_task_id is None]
        name = shown_name(campaign)
        add_missing(campaign, client)  # what was adopted may have predictions of an earlier name only
        for start in range(0, len(pending), BATCH):
            tasks = pending[start : start + BATCH]
            _import(campaign, project, tasks, name, client)
            if not start:
                show(campaign, client, name)
            opened += len(tasks)
    return opened


def _pending(campaign: Campaign) -> list[AnnotationTask]:
    """In the order in which they are imported, which is the order in which Label Studio serves them."""
    waiting = campaign.tasks.filter(state=AnnotationTask.State.PENDING)
    return with_newest_predictions(waiting.order_by("batch__number", "rank", "created"), campaign)


def _adopt(campaign: Campaign, project: int, pending: Sequence[AnnotationTask], client: Client) -> int:
    """Note the tasks that are in Label Studio already; of exact copies keep one, preferably one that was annotated."""
    oldest = campaign.tasks.filter(pk__in=[task.pk for task in pending]).aggregate(first=Min("created"))["first"]
    waiting = {str(task.pk): task for task in pending}
    copies: dict[str, list[Json]] = {}
    for found in client.tasks(project, created_since=oldest - CLOCK_SKEW, full=False):
        identifier = (found.get("data") or {}).get(TASK_ID)
        if identifier in waiting:
            copies.setdefault(identifier, []).append(found)
    adopted = []
    for identifier, found_tasks in copies.items():
        found_tasks.sort(key=lambda found: (-found["total_annotations"] - found["cancelled_annotations"], found["id"]))
        task = waiting[identifier]
        task.ls_task_id = found_tasks[0]["id"]
        adopted.append(task)
        for copy in found_tasks[1:]:
            if not copy["total_annotations"] and not copy["cancelled_annotations"]:
                client.delete_task(copy["id"])
    _note(campaign, adopted, "adopted")
    mark_as_given(campaign, [task.pk for task in adopted], campaign.ls_shown)
    return len(adopted)


def _import(campaign: Campaign, project: int, tasks: Sequence[AnnotationTask], name: str, client: Client) -> None:
    remember(tasks, name)
    modalities = shown_modalities(campaign)
    payload = [
        {"data": _data(task, modalities), "predictions": [prediction]}
        for task, prediction in zip(tasks, predictions_of(campaign, tasks, name), strict=True)
    ]
    answer = client.import_tasks(project, payload)
    identifiers = answer.get("task_ids", [])
    if len(identifiers) != len(tasks) or answer.get("prediction_count") != len(tasks):
        raise LabelStudioUnavailable(
            f"Label Studio took {len(identifiers)} tasks and {answer.get('prediction_count')} predictions of "
            f"{len(tasks)} given for campaign {campaign.name}; they are sorted out at the next push."
        )
    for task, identifier in zip(tasks, identifiers, strict=True):
        task.ls_task_id = identifier
    _note(campaign, tasks, "imported")
    mark_as_given(campaign, [task.pk for task in tasks], name)


def _note(campaign: Campaign, tasks: Sequence[AnnotationTask], how: str) -> None:
    if not tasks:
        return
    numbers = Case(*[When(pk=task.pk, then=task.ls_task_id) for task in tasks], output_field=BigIntegerField())
    with transaction.atomic():
        # Conditional: a webhook may have been faster, and its annotation has set the state.
        campaign.tasks.filter(pk__in=[task.pk for task in tasks], state=AnnotationTask.State.PENDING).update(
            state=AnnotationTask.State.OPEN, ls_task_id=numbers
        )
        audit("labeling.push_tasks", campaign, after={how: len(tasks)})


def _data(task: AnnotationTask, modalities: Sequence[Modality]) -> Json:
    pictures = {picture_name(modality): picture_url(task.tile, modality) for modality in modalities}
    return {
        **pictures,
        TASK_ID: str(task.pk),
        NOTE: "",
        "tile": task.tile.key,
        "batch": task.batch.number if task.batch else None,
    }
