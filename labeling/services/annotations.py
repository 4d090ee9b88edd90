"""From what annotators submit to labels: append-only annotations, and the label revisions that follow from them.

An LS annotation is a chain of rows, each superseding the one before; a deletion is its last row. Per task one
annotation holds: the one submitted last among those that stand and make a statement about the tile
(`selectors.standing_annotations`). A submission that was not understood in full makes none: nothing of it becomes a
label, the tile is no negative, and it takes nothing back that another annotation of the task said. The task's labels
are what the holding annotation draws, so whatever happens to annotations, the labels are settled anew from the rows:
drawn → PRESENT, anything else → RETIRED.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.dateparse import parse_datetime

from labeling.errors import BadAnnotation
from labeling.labelstudio.cleaning import clean_json
from labeling.labelstudio.results import Reading, Shape, iou, read_result, shown_union
from labeling.labelstudio.shown import shown_instances
from labeling.models import Annotation, AnnotationTask, Prediction
from labeling.selectors import misunderstood_annotations, standing_annotations
from labeling.services.labels import Cause, settle_labels
from labeling.signals import labels_arrived
from thawloop.campaigns.models import Campaign, LandformClass
from thawloop.catalog.pictures import picture_size
from thawloop.core.context import current_actor
from thawloop.core.services import audit

Json = dict[str, Any]


@dataclass(frozen=True)
class Submission:
    """What of an annotation's JSON we use."""

    annotation: int
    updated: datetime
    skipped: bool
    result: list[Any]
    lead_time: float | None
    annotator: int | None
    model_version: str

    @property
    def kind(self) -> Annotation.Kind:
        """What its row is."""
        return Annotation.Kind.SKIPPED if self.skipped else Annotation.Kind.SUBMITTED

    def is_recorded_by(self, row: Annotation) -> bool:
        """Whether a row says the same; times alone prove nothing."""
        same = row.kind == self.kind and row.ls_updated_at == self.updated
        return bool(same and row.result == self.result)

    def is_older_than(self, row: Annotation) -> bool:
        """Whether a row is of the same time or a later one, or the annotation's last."""
        return bool(row.kind == Annotation.Kind.DELETED or row.ls_updated_at >= self.updated)


def record_annotation(
    task: AnnotationTask, payload: Json, *, people: Mapping[int, str] | None = None, held_now: bool = False
) -> Annotation:
    """Record the state of an annotation as Label Studio gives it, and settle the task's labels.

    Any number of callers may record the same state, in any order: it becomes one row. A state older than what is
    known, or of an annotation that was deleted, is not recorded; the row that stands is returned. Unless it is what
    Label Studio holds now: then it counts, whatever its time.

    Args:
        task: The task it belongs to.
        payload: The annotation's JSON, of the campaign's present project.
        people: Label Studio's users, id → e-mail address, to name the annotator.
        held_now: The caller has just read it from Label Studio, and is the only one who does so for the campaign.

    Raises:
        BadAnnotation: The payload has no usable id or time. Bad regions are no error: they become `problems`, and
            the row then makes no statement about the tile.
    """
    submission = read_submission(payload)
    with transaction.atomic():
        task = _locked(task)
        newest = _newest(task, submission.annotation)
        if newest is not None and (submission.is_recorded_by(newest) if held_now else submission.is_older_than(newest)):
            return newest
        reading = _read(task, submission.result)
        prediction = _prediction(task, submission.model_version)
        email = _email(submission.annotator, people)
        annotation = Annotation.objects.create(
            task=task,
            ls_generation=task.campaign.ls_generation,
            ls_annotation_id=submission.annotation,
            ls_updated_at=submission.updated,
            kind=submission.kind,
            annotator=get_user_model().objects.filter(email__iexact=email).order_by("pk").first() if email else None,
            annotator_name=email[:254],
            result=submission.result,
            lead_time=submission.lead_time,
            prediction=prediction,
            correction_iou=None if submission.skipped else _correction(task, prediction, reading),
            problems=reading.problems,
            mended=reading.mended,
            supersedes=newest,
        )
        _settle(task, annotation, reading)
    return annotation


def record_deletion(task: AnnotationTask, ls_annotation_id: int, *, reason: str = "") -> Annotation | None:
    """Record that an annotation was deleted in Label Studio: a last row, and its labels are retired.

    An earlier annotation of the same task that stands holds again. Returns None for an annotation never heard of.
    """
    with transaction.atomic():
        task = _locked(task)
        newest = _newest(task, ls_annotation_id)
        if newest is None or newest.kind == Annotation.Kind.DELETED:
            return newest
        tombstone = Annotation.objects.create(
            task=task,
            ls_generation=newest.ls_generation,
            ls_annotation_id=ls_annotation_id,
            ls_updated_at=newest.ls_updated_at,
            kind=Annotation.Kind.DELETED,
            annotator_name=current_actor().name[:254],
            supersedes=newest,
        )
        _settle(task, tombstone, reason=reason)
    return tombstone


def withdraw_task(task: AnnotationTask) -> None:
    """Take note that a task was deleted in Label Studio: its annotations are deleted, its labels retired.

    The task stays WITHDRAWN; it is not pushed again by itself, because somebody did not want it.
    """
    with transaction.atomic():
        task = _locked(task)
        if task.state in (AnnotationTask.State.WITHDRAWN, AnnotationTask.State.PENDING):
            return
        before = task.state
        for annotation in _standing(task):
            if annotation.ls_generation != task.campaign.ls_generation:
                continue
            record_deletion(task, annotation.ls_annotation_id, reason="The task was deleted in Label Studio.")
        AnnotationTask.objects.filter(pk=task.pk).update(state=AnnotationTask.State.WITHDRAWN)
        task.state = AnnotationTask.State.WITHDRAWN
        audit("labeling.withdraw_task", task, before={"state": before}, after={"state": task.state})


def adopt_task(task: AnnotationTask, ls_task_id: int) -> None:
    """Take note that a task is in Label Studio although we did not know (any more): annotators are given it there."""
    with transaction.atomic():
        task = _locked(task)
        if task.state not in (AnnotationTask.State.WITHDRAWN, AnnotationTask.State.PENDING):
            return
        before, task.ls_task_id = task.state, ls_task_id
        task.state = _state(_standing(task), task.campaign.ls_generation)
        task.save(update_fields=["state", "ls_task_id", "updated"])
        audit("labeling.adopt_task", task, before={"state": before}, after={"state": task.state})


def settle_again(campaign: Campaign) -> int:
    """Read the submissions anew that were not understood in full, and settle their tasks; returns how many tasks.

    For rows of before they made a statement all the same, and some of them are understood by now (with an arrow
    between two shapes): a migration has it done once. Doing it again changes nothing.
    """
    waiting = misunderstood_annotations(campaign)
    tasks = list(AnnotationTask.objects.filter(pk__in=waiting.values("task")).order_by("pk"))
    for task in tasks:
        with transaction.atomic():
            task = _locked(task)
            rows = [_read_anew(task, row) for row in waiting.filter(task=task).order_by("id")]
            if rows:
                _settle(task, rows[-1], reason="What is not understood in full makes no statement about its tile.")
    return len(tasks)


def _read_anew(task: AnnotationTask, row: Annotation) -> Annotation:
    """The row, or the one that supersedes it if this version understands what an earlier one did not."""
    reading = _read(task, row.result)
    if reading.problems:
        return row
    return Annotation.objects.create(
        task=task,
        ls_generation=row.ls_generation,
        ls_annotation_id=row.ls_annotation_id,
        ls_updated_at=row.ls_updated_at,
        kind=row.kind,
        annotator=row.annotator,
        annotator_name=row.annotator_name,
        result=row.result,
        lead_time=row.lead_time,
        prediction=row.prediction,
        correction_iou=_correction(task, row.prediction, reading),
        mended=reading.mended,
        supersedes=row,
    )


def _locked(task: AnnotationTask) -> AnnotationTask:
    """The task as it is now; whoever else records something for it waits."""
    related = ("campaign", "tile__grid", "prediction")
    return AnnotationTask.objects.select_related(*related).select_for_update(of=("self",)).get(pk=task.pk)


def _newest(task: AnnotationTask, ls_annotation_id: int) -> Annotation | None:
    """Its newest row in the campaign's present project: another project's annotation of that number is another one."""
    rows = task.annotations.filter(ls_generation=task.campaign.ls_generation, ls_annotation_id=ls_annotation_id)
    return rows.order_by("-id").first()


def _standing(task: AnnotationTask) -> list[Annotation]:
    """The newest row of each annotation that was not deleted."""
    return list(task.annotations.filter(superseded_by__isnull=True).exclude(kind=Annotation.Kind.DELETED))


def _settle(task: AnnotationTask, cause: Annotation, reading: Reading | None = None, *, reason: str = "") -> None:
    """Make the task's state and labels what its standing annotations say."""
    holding = standing_annotations(task.campaign).filter(task=task).select_related("annotator").last()
    labels: list[Shape] = []
    if holding is not None:
        read = reading if reading is not None and holding.pk == cause.pk else _read(task, holding.result)
        labels = read.labels
    changes = settle_labels(task, holding, labels, Cause(cause, reason))
    before = task.state
    if task.state != AnnotationTask.State.WITHDRAWN:
        task.state = _state(_standing(task), task.campaign.ls_generation)
        task.save(update_fields=["state", "updated"])
    audit(
        "labeling.record_annotation",
        cause,
        before={"state": before},
        after={"state": task.state, "kind": cause.kind, "problems": cause.problems, **changes.counts()},
        reason=reason,
    )
    labels_arrived.send(Annotation, campaign=task.campaign)


def _state(standing: list[Annotation], generation: int) -> AnnotationTask.State:
    if any(row.kind == Annotation.Kind.SUBMITTED and not row.problems for row in standing):
        return AnnotationTask.State.SUBMITTED
    # What an earlier project left undone was given to annotators again, in this one.
    here = [row for row in standing if row.ls_generation == generation]
    if any(row.kind == Annotation.Kind.SUBMITTED for row in here):
        return AnnotationTask.State.RETURNED
    return AnnotationTask.State.SKIPPED if here else AnnotationTask.State.OPEN


def read_submission(payload: Json) -> Submission:
    """Read an annotation's JSON.

    Raises:
        BadAnnotation: It has no usable id or time.
    """
    payload = clean_json(payload)
    identifier, updated = payload.get("id"), payload.get("updated_at") or payload.get("created_at")
    if type(identifier) is not int or not 0 < identifier < 2**63:
        raise BadAnnotation(f"An annotation came without a usable id: {str(identifier)[:50]!r}.")
    try:
        moment = parse_datetime(updated) if isinstance(updated, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise BadAnnotation(f"Annotation {identifier} came without a usable `updated_at`: {str(updated)[:50]!r}.")
    result, lead_time, annotator = payload.get("result"), payload.get("lead_time"), payload.get("completed_by")
    if isinstance(annotator, dict):  # some answers hold the whole user
        annotator = annotator.get("id")
    prediction = payload.get("prediction")
    version = prediction.get("model_version") if isinstance(prediction, dict) else None
    return Submission(
        annotation=identifier,
        updated=moment if moment.tzinfo else moment.replace(tzinfo=UTC),
        skipped=payload.get("was_cancelled") is True,
        result=result if isinstance(result, list) else [result],  # what is no list becomes a problem, never a negative
        lead_time=_seconds(lead_time),
        annotator=annotator if type(annotator) is int else None,
        model_version=version if isinstance(version, str) else "",
    )


def _seconds(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        return None
    return float(value)


def _email(annotator: int | None, people: Mapping[int, str] | None) -> str:
    if annotator is None:
        return ""
    return (people or {}).get(annotator) or f"Label Studio user {annotator}"


def _read(task: AnnotationTask, result: list[Any]) -> Reading:
    classes = LandformClass.objects.filter(campaigns=task.campaign).values_list("name", flat=True)
    return read_result(result, tile_size=task.tile.grid.tile_size, classes=set(classes))


def _prediction(task: AnnotationTask, model_version: str) -> Prediction | None:
    """What the annotator started from: the prediction named, else the one the task was given."""
    if model_version:
        if (given := task.preannotations.filter(name=model_version).select_related("prediction").first()) is not None:
            return given.prediction
        named = Prediction.objects.filter(tile=task.tile, model_version__name=model_version).first()
        if named is not None:
            return named
    return task.prediction


def _correction(task: AnnotationTask, prediction: Prediction | None, reading: Reading) -> float | None:
    """How much of what was shown stayed. Seen as drawn, so that untouched gives 1."""
    if prediction is None or not reading.says_something:
        return None
    shown = shown_union(
        shown_instances(prediction, task.campaign.score_threshold),
        tile_size=task.tile.grid.tile_size,
        picture_size=picture_size(task.tile),
    )
    return round(iou(reading.union, shown), 6)
