"""Pre-annotations: each waiting task has one prediction under the one model version that Label Studio shows.

Label Studio shows the predictions of one version per project. So all waiting tasks get theirs under one name, the
champion's prediction where there is one, else the one they had; when any of them is to be replaced, all are imported
again under another name, and the project is switched to it once they are there. Whoever opens a task at any moment
sees one prediction, the old or the new one.

What was replaced is removed much later, and task by task: Label Studio refuses what somebody submits who started from a
prediction that is gone, deletes slowly, and passes over tasks that it is busy with when it serves the next one.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, Prefetch, QuerySet, Subquery
from django.utils import timezone

from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import LabelStudioRefused, LabelStudioUnavailable
from labeling.labelstudio.identity import own_project
from labeling.labelstudio.payloads import NO_MODEL, Preannotations
from labeling.labelstudio.projects import ensure_project
from labeling.models import AnnotationTask, Preannotation, PredictedInstance, Prediction
from thawloop.campaigns.models import Campaign
from thawloop.core.jobs import enqueue
from thawloop.core.locks import exclusive
from thawloop.core.models import Job
from thawloop.core.services import audit
from thawloop.registry.selectors import champion_name

log = structlog.get_logger(__name__)
Json = dict[str, Any]

State = AnnotationTask.State
WAITING = (State.OPEN, State.SKIPPED)  # a task that one person skipped is offered to the others
CHUNK = 500
# Each request makes Label Studio recount the whole project: few large ones. 5,000 predictions are some 10 MB.
IMPORTED_AT_ONCE = 5000
# Replacing so many takes seconds: done whenever one of them is outdated.
FEW = 500
REMOVED_AT_ONCE = 20
# So long Label Studio reserves a task for the person who opened it (its TASK_LOCK_TTL).
KEEP_REPLACED = timedelta(days=1)


def refresh_preannotations(campaign: Campaign) -> int:
    """Give waiting tasks the champion's predictions instead of an older model's, all at the same moment.

    Tasks that somebody annotated already keep what was shown. Killed anywhere in here, what was shown before is still
    shown, and the next refresh does it all again.

    Returns:
        How many tasks were given another prediction.

    Raises:
        Refused, ProjectGone, LabelStudioUnavailable: as `ensure_project`.
        LabelStudioUnavailable: Label Studio took fewer predictions than it was given; it still shows the old ones.
    """
    if campaign.ls_project_id is None:
        return 0
    with exclusive(f"push:{campaign.pk}"), Client() as client:
        ensure_project(campaign, client)
        if not campaign.ls_shown or _count_champions(campaign)[1]:
            count = _replace_all(campaign, client)
        else:
            count = add_missing(campaign, client)
    if _replaced(campaign).exists():
        enqueue("labeling.labelstudio.jobs.tidy", key=f"tidy:{campaign.pk}", args={"campaign": campaign.pk})
    return count


def has_outdated_preannotations(campaign: Campaign) -> bool:
    """Whether waiting tasks should be given other predictions now.

    While the champion's predictions of many tasks are still arriving, not for each of them: all are replaced each time.
    """
    if campaign.ls_project_id is None:
        return False
    if not campaign.ls_shown:
        return _waiting(campaign).exists()
    waiting = _waiting(campaign).count()
    spoken, outdated = _count_champions(campaign)
    if not outdated:
        return _missing(campaign).exists()
    return waiting <= FEW or not _is_predicting(campaign) or outdated >= waiting - spoken


def shown_name(campaign: Campaign) -> str:
    """The name by which Label Studio shows the campaign's predictions; chosen and noted if there is none yet."""
    if not campaign.ls_shown:
        _note_shown(campaign, _new_name(campaign))
    return campaign.ls_shown


def remember(tasks: Iterable[AnnotationTask], name: str) -> None:
    """Record which prediction (their `prediction`) tasks are about to be given under a name."""
    rows = [Preannotation(task=task, name=name, prediction_id=task.prediction_id) for task in tasks]
    Preannotation.objects.bulk_create(
        rows,
        batch_size=1000,
        update_conflicts=True,
        unique_fields=["task", "name"],
        update_fields=["prediction", "removed"],
    )


def add_predictions(campaign: Campaign, tasks: Sequence[AnnotationTask], client: Client, name: str) -> None:
    """Add predictions to tasks that are in Label Studio, under a name that none of theirs has.

    A task that somebody deleted there does not hold up the others; the next sync records the deletion.
    """
    assert campaign.ls_project_id is not None
    remember(tasks, name)
    try:
        _import(campaign, tasks, client, name)
    except LabelStudioRefused:
        there = {found["id"] for found in client.tasks(campaign.ls_project_id, full=False)}
        left = [task for task in tasks if task.ls_task_id in there]
        if len(left) == len(tasks):
            raise
        log.warning("tasks are gone from Label Studio", campaign=campaign.name, tasks=len(tasks) - len(left))
        _import(campaign, left, client, name)


def _import(campaign: Campaign, tasks: Sequence[AnnotationTask], client: Client, name: str) -> None:
    assert campaign.ls_project_id is not None
    made = predictions_of(campaign, tasks, name)
    payload = ({"task": task.ls_task_id} | prediction for task, prediction in zip(tasks, made, strict=True))
    while some := list(islice(payload, IMPORTED_AT_ONCE)):
        created = client.import_predictions(campaign.ls_project_id, some)
        if created != len(some):
            raise LabelStudioUnavailable(
                f"Label Studio took {created} of {len(some)} predictions for campaign {campaign.name}; "
                "its log says why. They are imported again at the next refresh."
            )


def add_missing(campaign: Campaign, client: Client) -> int:
    """Give a prediction of the name that is shown to those waiting tasks that have none; how many there were."""
    missing = with_newest_predictions(_missing(campaign), campaign)
    if missing:
        add_predictions(campaign, missing, client, campaign.ls_shown)
        mark_as_given(campaign, [task.pk for task in missing], campaign.ls_shown)
    return len(missing)


def mark_as_given(campaign: Campaign, tasks: Sequence[Any], name: str) -> None:
    """Set tasks' `prediction` to what was recorded for them under a name."""
    given = Preannotation.objects.filter(task=OuterRef("pk"), name=name)
    noted = campaign.tasks.filter(Exists(given), pk__in=tasks)
    noted.update(prediction=Subquery(given.values("prediction")[:1]))


def predictions_of(campaign: Campaign, tasks: Sequence[AnnotationTask], name: str) -> Iterator[Json]:
    """The tasks' predictions in Label Studio's JSON, read from the database in chunks."""
    preannotations = Preannotations(campaign)
    for start in range(0, len(tasks), CHUNK):
        some = tasks[start : start + CHUNK]
        predictions = _predictions(task.prediction_id for task in some)
        for task in some:
            prediction = predictions.get(task.prediction_id) if task.prediction_id else None
            yield preannotations.of(task, prediction, name)


def with_newest_predictions(tasks: "QuerySet[AnnotationTask]", campaign: Campaign) -> list[AnnotationTask]:
    """Tasks with the `prediction` that they should have, not saved: the champion's, else the one they had."""
    found = list(tasks.select_related("tile__grid", "batch").defer("tile__geometry"))
    spoken = _champions_predictions(campaign, [task.tile_id for task in found])
    for task in found:
        task.prediction_id = spoken.get(task.tile_id, task.prediction_id)
    return found


def show(campaign: Campaign, client: Client, name: str) -> None:
    """Have Label Studio show the predictions of this name, of which there must be one."""
    assert campaign.ls_project_id is not None
    if client.project(campaign.ls_project_id)["model_version"] != name:
        client.change_project(campaign.ls_project_id, {"model_version": name})


def tidy_preannotations(campaign: Campaign, *, go_on: Callable[[], bool] = lambda: True) -> int:
    """Remove predictions of waiting tasks from Label Studio that were replaced more than a day ago.

    Returns:
        Of how many tasks some were removed.

    Raises:
        ExchangeStopped, LabelStudioUnavailable: as `own_project`.
    """
    count = 0
    with Client() as client:
        while go_on():
            with exclusive(f"push:{campaign.pk}"):  # what is shown stays the same meanwhile
                campaign.refresh_from_db()
                tasks = _replaced(campaign).order_by("task__ls_task_id").values_list("task__ls_task_id", flat=True)
                some = [task for task in tasks.distinct()[:REMOVED_AT_ONCE] if task is not None]
                if some:
                    own_project(campaign, client)  # else the numbers may be another project's tasks
                for task in some:
                    _remove_replaced(campaign, task, client)
            count += len(some)
            if not some:
                break
    return count


def _replaced(campaign: Campaign) -> "QuerySet[Preannotation]":
    """Predictions of waiting tasks that were replaced more than a day ago."""
    now = Preannotation.objects.filter(name=campaign.ls_shown, created__lt=timezone.now() - KEEP_REPLACED)
    standing = Preannotation.objects.filter(removed=False, task__in=_waiting(campaign).order_by())
    return standing.filter(task__in=now.values("task")).exclude(name=campaign.ls_shown)


def _remove_replaced(campaign: Campaign, task: int, client: Client) -> None:
    for prediction in client.predictions(task):
        if prediction["model_version"] != campaign.ls_shown:
            client.delete_prediction(prediction["id"])
    _replaced(campaign).filter(task__ls_task_id=task).update(removed=True)


def _replace_all(campaign: Campaign, client: Client) -> int:
    """Give all waiting tasks a prediction under another name, and switch the project to it."""
    before = dict(_waiting(campaign).values_list("pk", "prediction"))
    if not before:
        return 0
    tasks, name = with_newest_predictions(_waiting(campaign), campaign), _new_name(campaign)
    add_predictions(campaign, tasks, client, name)
    show(campaign, client, name)
    changed = sum(before.get(task.pk) != task.prediction_id for task in tasks)
    with transaction.atomic():
        _note_shown(campaign, name)
        mark_as_given(campaign, [task.pk for task in tasks], name)
        audit("labeling.refresh_preannotations", campaign, after={"tasks": changed, "of": len(tasks), "shown": name})
    return changed


def _waiting(campaign: Campaign) -> "QuerySet[AnnotationTask]":
    return campaign.tasks.filter(state__in=WAITING, ls_task_id__isnull=False).order_by("ls_task_id")


def _count_champions(campaign: Campaign) -> tuple[int, int]:
    """How many waiting tasks' tiles the champion has predicted, and how many of these have another prediction."""
    shown = dict(_waiting(campaign).values_list("tile", "prediction"))
    spoken = _champions_predictions(campaign, shown)
    return len(spoken), sum(shown[tile] != prediction for tile, prediction in spoken.items())


def _champions_predictions(campaign: Campaign, tiles: Collection[int]) -> dict[int, int]:
    """The champion's predictions: tile → prediction. Joined here, because that always gives a good query plan."""
    champion = campaign.aliases.filter(alias="champion").values("model_version")
    return dict(Prediction.objects.filter(model_version__in=champion, tile__in=list(tiles)).values_list("tile", "pk"))


def _missing(campaign: Campaign) -> "QuerySet[AnnotationTask]":
    """Waiting tasks without a prediction of the name that is shown: a killed push left them, or they wait again."""
    given = Preannotation.objects.filter(task=OuterRef("pk"), name=campaign.ls_shown)
    return _waiting(campaign).filter(~Exists(given))


def _new_name(campaign: Campaign) -> str:
    """The champion's, with a number if tasks had predictions of that name before."""
    model = champion_name(campaign) or NO_MODEL
    used = set(
        Preannotation.objects.filter(task__campaign=campaign, task__ls_task_id__isnull=False, name__startswith=model)
        .values_list("name", flat=True)
        .distinct()
    )
    name, number = model, 1
    while name in used:
        number += 1
        name = f"{model} #{number}"
    return name


def _note_shown(campaign: Campaign, name: str) -> None:
    Campaign.objects.filter(pk=campaign.pk).update(ls_shown=name)
    campaign.ls_shown = name


def _predictions(identifiers: Iterable[int | None]) -> dict[int, Prediction]:
    """Predictions with what is shown of them."""
    instances = PredictedInstance.objects.defer("geometry", "stage_scores", "stage_boxes")
    rows = (
        Prediction.objects.filter(pk__in={identifier for identifier in identifiers if identifier is not None})
        .defer("embedding", "uncertainty_parts")
        .select_related("model_version")
        .prefetch_related(Prefetch("instances", instances.select_related("landform_class")))
    )
    return {row.pk: row for row in rows}


def _is_predicting(campaign: Campaign) -> bool:
    mine = Job.objects.filter(function="ml_backend.jobs.predict", args__campaign=campaign.pk)
    return mine.filter(state__in=Job.ACTIVE).exists()
