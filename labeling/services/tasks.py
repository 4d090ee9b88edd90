"""Giving tiles to annotators: tasks with pre-annotations, pushed in acquisition order, never lost and never doubled."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Count, F, Min, OuterRef, Subquery

from labeling.labelstudio.client import Client
from labeling.labelstudio.config import picture_name, shown_modalities
from labeling.labelstudio.errors import LabelStudioUnavailable
from labeling.labelstudio.preannotations import NO_MODEL, Preannotations
from labeling.locks import exclusive
from labeling.models import AnnotationTask, Campaign, Prediction
from labeling.selectors import champion_name
from labeling.services.projects import ensure_project, show_model_version
from thawloop.catalog.models import Modality
from thawloop.catalog.pictures import picture_url
from thawloop.core.services import audit

__all__ = ["ensure_project", "push_tasks", "refresh_preannotations"]

log = structlog.get_logger(__name__)
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
    with exclusive("push", campaign), Client() as client:
        project = ensure_project(campaign, client)
        pending = _waiting(campaign)
        if not pending:
            return 0
        opened = _adopt(campaign, project, pending, client)
        pending = [task for task in pending if task.ls_task_id is None]
        for start in range(0, len(pending), BATCH):
            tasks = pending[start : start + BATCH]
            _import(campaign, project, tasks, client)
            opened += len(tasks)
        if opened:
            _show(campaign, client)
    return opened


def refresh_preannotations(campaign: Campaign) -> int:
    """Give open tasks the champion's predictions instead of an older model's.

    Tasks that somebody annotated already keep what was shown. Predictions of the version before are removed.

    Returns:
        How many tasks were given another prediction.
    """
    with exclusive("push", campaign), Client() as client:
        version = champion_name(campaign)
        if not version or campaign.ls_project_id is None:
            return 0
        project = ensure_project(campaign, client)
        outdated = _outdated(campaign, version)
        if outdated:
            _replace_predictions(campaign, project, outdated, client)
        _show(campaign, client)
    return len(outdated)


def _waiting(campaign: Campaign) -> list[AnnotationTask]:
    champion = Prediction.objects.filter(
        tile=OuterRef("tile"),
        model_version__aliases__alias="champion",
        model_version__aliases__campaign=campaign,
    )
    tasks = (
        campaign.tasks.filter(state=AnnotationTask.State.PENDING)
        .annotate(champion_prediction=Subquery(champion.values("pk")[:1]))
        .order_by("batch__number", "rank", "created")
        .select_related("tile__grid", "batch", "campaign")
    )
    return _with_champions_prediction(tasks)


def _with_champions_prediction(tasks: Iterable[AnnotationTask]) -> list[AnnotationTask]:
    """Tasks annotated with `champion_prediction`, as they will be: with that one, if there is one."""
    changed = list(tasks)
    for task in changed:
        task.prediction_id = getattr(task, "champion_prediction", None) or task.prediction_id
    return changed


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
    return len(adopted)


def _import(campaign: Campaign, project: int, tasks: Sequence[AnnotationTask], client: Client) -> None:
    predictions = _predictions(task.prediction_id for task in tasks)
    modalities = shown_modalities(campaign)
    preannotations = Preannotations(campaign)
    payload = [
        {
            "data": _data(task, modalities),
            "predictions": [preannotations.of(task, predictions.get(task.prediction_id))],
        }
        for task in tasks
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


def _note(campaign: Campaign, tasks: Sequence[AnnotationTask], how: str) -> None:
    if not tasks:
        return
    with transaction.atomic():
        for task in tasks:
            # Conditional: a webhook may have been faster, and its annotation has set the state.
            campaign.tasks.filter(pk=task.pk, state=AnnotationTask.State.PENDING).update(
                state=AnnotationTask.State.OPEN, ls_task_id=task.ls_task_id, prediction=task.prediction_id
            )
        audit("labeling.push_tasks", campaign, after={how: len(tasks)})


def _predictions(identifiers: Iterable[int | None]) -> dict[int | None, Prediction]:
    wanted = {identifier for identifier in identifiers if identifier is not None}
    rows = Prediction.objects.select_related("model_version").prefetch_related("instances__landform_class")
    return {row.pk: row for row in rows.filter(pk__in=wanted)}


def _data(task: AnnotationTask, modalities: Sequence[Modality]) -> Json:
    pictures = {picture_name(modality): picture_url(task.tile, modality) for modality in modalities}
    return {
        **pictures,
        TASK_ID: str(task.pk),
        "tile": task.tile.key,
        "batch": task.batch.number if task.batch else None,
    }


def _outdated(campaign: Campaign, version: str) -> list[AnnotationTask]:
    """Open tasks that show another version although the champion has spoken about their tile."""
    champion = Prediction.objects.filter(tile=OuterRef("tile"), model_version__name=version).values("pk")[:1]
    tasks = (
        campaign.tasks.filter(state=AnnotationTask.State.OPEN)
        .annotate(champion_prediction=Subquery(champion))
        .filter(champion_prediction__isnull=False)
        .exclude(prediction__model_version__name=version)
        .select_related("tile__grid", "batch")
        .order_by("batch__number", "rank")
    )
    return _with_champions_prediction(tasks)


def _replace_predictions(campaign: Campaign, project: int, tasks: Sequence[AnnotationTask], client: Client) -> None:
    """Killed anywhere in here, the tasks are still outdated, and the next refresh does it all again.

    Who opens a task in the moment without prediction gets the champion's from the ML backend. Both requests are for
    all tasks at once, because each makes Label Studio recount the whole project.
    """
    predictions = _predictions(task.prediction_id for task in tasks)
    preannotations = Preannotations(campaign)
    payload = [{"task": task.ls_task_id, **preannotations.of(task, predictions[task.prediction_id])} for task in tasks]
    client.delete_predictions(project, [task.ls_task_id for task in tasks if task.ls_task_id is not None])
    created = client.import_predictions(project, payload)
    if created != len(tasks):
        raise LabelStudioUnavailable(
            f"Label Studio took {created} of {len(tasks)} predictions for campaign {campaign.name}; "
            "its log says why. They are given again at the next refresh."
        )
    with transaction.atomic():
        for task in tasks:
            AnnotationTask.objects.filter(pk=task.pk).update(prediction=task.prediction_id)
        audit("labeling.refresh_preannotations", campaign, after={"tasks": len(tasks)})


def _show(campaign: Campaign, client: Client) -> None:
    """Have Label Studio order by the version that most open tasks show, the newest in doubt."""
    shown = (
        campaign.tasks.filter(state=AnnotationTask.State.OPEN)
        .order_by()
        .values("prediction__model_version__name")
        .annotate(tasks=Count("pk"))
        .order_by("-tasks", F("prediction__model_version").desc(nulls_last=True))
        .first()
    )
    if shown is not None:
        show_model_version(campaign, client, shown["prediction__model_version__name"] or NO_MODEL)
