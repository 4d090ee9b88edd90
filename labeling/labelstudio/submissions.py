"""From an annotation's JSON in Label Studio to a submission, and into the labeling room."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from django.db import transaction
from django.utils.dateparse import parse_datetime

from labeling.labelstudio.errors import BadAnnotation
from labeling.labelstudio.regions import iou, read_result, shown_union
from labeling.labelstudio.shown import shown_instances
from labeling.models import Annotation, AnnotationTask, Prediction
from labeling.selectors import misunderstood_annotations
from labeling.services.annotations import locked_task, record_annotation, settle_task, understand_again
from labeling.submission import AnnotationVersion, Submission, SubmissionContent
from thawloop.campaigns.models import Campaign, LandformClass
from thawloop.catalog.pictures import picture_size
from thawloop.core.jsonable import clean_json

Json = dict[str, Any]


def record_payload(
    task: AnnotationTask, payload: Json, *, people: Mapping[int, str] | None = None, held_now: bool = False
) -> Annotation:
    """Record an annotation as Label Studio gives it: `read_submission` and `record_annotation` in one.

    Raises:
        BadAnnotation: The payload has no usable id or time. Bad regions are not an error: they become `problems`, and
            the row then makes no statement about the tile.
    """
    return record_annotation(task, read_submission(task, payload, people), held_now=held_now)


def read_version(payload: Json) -> AnnotationVersion:
    """Which state of which annotation a JSON is; its shapes are not looked at.

    Raises:
        BadAnnotation: It has no usable id or time.
    """
    identifier, updated = payload.get("id"), payload.get("updated_at") or payload.get("created_at")
    if type(identifier) is not int or not 0 < identifier < 2**63:
        raise BadAnnotation(f"An annotation came without a usable id: {str(identifier)[:50]!r}.")
    try:
        moment = parse_datetime(updated) if isinstance(updated, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise BadAnnotation(f"Annotation {identifier} came without a usable `updated_at`: {str(updated)[:50]!r}.")
    result = clean_json(payload.get("result"))
    return AnnotationVersion(
        number=identifier,
        updated=moment if moment.tzinfo else moment.replace(tzinfo=UTC),
        skipped=payload.get("was_cancelled") is True,
        raw=result if isinstance(result, list) else [result],  # anything but a list becomes a problem, never a negative
    )


def read_submission(task: AnnotationTask, payload: Json, people: Mapping[int, str] | None = None) -> Submission:
    """Interpret an annotation's JSON.

    Args:
        task: The task that it belongs to.
        payload: The annotation, of the campaign's present project.
        people: Label Studio's users, id → e-mail address, to name the annotator.

    Raises:
        BadAnnotation: It has no usable id or time.
    """
    version = read_version(payload)
    annotator = payload.get("completed_by")
    if isinstance(annotator, dict):  # some answers hold the whole user
        annotator = annotator.get("id")
    prediction = payload.get("prediction")
    model = prediction.get("model_version") if isinstance(prediction, dict) else None
    started_from = _prediction(task, model if isinstance(model, str) else "")
    return _submission(
        task,
        version,
        prediction=started_from,
        annotator=_email(annotator if type(annotator) is int else None, people),
        lead_time=_seconds(payload.get("lead_time")),
    )


def settle_again(campaign: Campaign) -> int:
    """Interpret again the submissions that were not understood in full, and update their tasks; returns how many tasks.

    In earlier versions they made a statement all the same, and some of them are understood by now (with an arrow
    between two shapes): a migration enqueues this once. Doing it again changes nothing.
    """
    waiting = misunderstood_annotations(campaign)
    tasks = list(AnnotationTask.objects.filter(pk__in=waiting.values("task")).order_by("pk"))
    for task in tasks:
        with transaction.atomic():
            task = locked_task(task)
            rows = [understand_again(task, row, _of_row(task, row)) for row in waiting.filter(task=task).order_by("id")]
            if rows:
                settle_task(task, rows[-1], reason="What is not understood in full makes no statement about its tile.")
    return len(tasks)


def _of_row(task: AnnotationTask, row: Annotation) -> Submission:
    """A recorded submission as it is understood now."""
    skipped = row.kind == Annotation.Kind.SKIPPED
    version = AnnotationVersion(row.ls_annotation_id, row.ls_updated_at, skipped, row.result)
    return _submission(task, version, prediction=row.prediction, annotator=row.annotator_name, lead_time=row.lead_time)


def _submission(
    task: AnnotationTask, version: AnnotationVersion, *, prediction: Prediction | None, **known: Any
) -> Submission:
    classes = LandformClass.objects.filter(campaigns=task.campaign).values_list("name", flat=True)
    content = read_result(version.raw, tile_size=task.tile.grid.tile_size, classes=set(classes))
    correction = _correction(task, prediction, content)
    return Submission(version, content, prediction=prediction, correction_iou=correction, **known)


def _seconds(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        return None
    return float(value)


def _email(annotator: int | None, people: Mapping[int, str] | None) -> str:
    if annotator is None:
        return ""
    return (people or {}).get(annotator) or f"Label Studio user {annotator}"


def _prediction(task: AnnotationTask, model_version: str) -> Prediction | None:
    """What the annotator started from: the prediction named, else the one the task was given."""
    if model_version:
        if (given := task.preannotations.filter(name=model_version).select_related("prediction").first()) is not None:
            return given.prediction
        named = Prediction.objects.filter(tile=task.tile, model_version__name=model_version).first()
        if named is not None:
            return named
    return task.prediction


def _correction(task: AnnotationTask, prediction: Prediction | None, content: SubmissionContent) -> float | None:
    """How much of what was shown stayed. Seen as drawn, so that untouched gives 1."""
    if prediction is None or not content.makes_statement:
        return None
    shown = shown_union(
        shown_instances(prediction, task.campaign.score_threshold),
        tile_size=task.tile.grid.tile_size,
        picture_size=picture_size(task.tile),
    )
    return round(iou(content.union, shown), 6)
