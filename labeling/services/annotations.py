"""Annotations as submitted (append-only), and the label revisions that follow from them.

An annotation is a chain of rows, each superseding the one before; a deletion is its last row. Per task one
annotation counts: the one submitted last among those that stand and make a statement about the tile
(`selectors.standing_annotations`). A submission that was not understood in full makes none: nothing of it becomes a
label, the tile is no negative, and it takes nothing back that another annotation of the task said. The task's labels
are what the holding annotation draws, so whatever happens to annotations, the labels are derived again from the rows:
drawn → PRESENT, anything else → RETIRED.
"""

from django.contrib.auth import get_user_model
from django.db import transaction

from labeling.models import Annotation, AnnotationTask
from labeling.selectors import standing_annotations
from labeling.services.labels import Cause, settle_labels
from labeling.signals import labels_arrived
from labeling.submission import Submission, shapes_from_json, shapes_to_json
from thawloop.campaigns.models import LandformClass
from thawloop.core.context import current_actor
from thawloop.core.services import audit


def record_annotation(task: AnnotationTask, submission: Submission, *, held_now: bool = False) -> Annotation:
    """Record a state of an annotation, and settle the task's labels.

    Any number of callers may record the same state, in any order: it becomes one row. A state older than what is
    known, or of an annotation that was deleted, is not recorded; the row that stands is returned. But what
    the annotators' tool holds now is recorded, whatever its time.

    Args:
        task: The task it belongs to.
        submission: Of the campaign's present project.
        held_now: The caller has just read it from where annotators work, and is the only one who does so for the
            campaign.
    """
    version = submission.version
    with transaction.atomic():
        task = locked_task(task)
        newest = _newest(task, version.number)
        if newest is not None and (version.is_recorded_by(newest) if held_now else version.is_older_than(newest)):
            return newest
        annotation = _add(task, submission, newest, task.campaign.ls_generation)
        settle_task(task, annotation)
    return annotation


def understand_again(task: AnnotationTask, row: Annotation, submission: Submission) -> Annotation:
    """A row's submission as it is understood now: the row itself, or a new one that supersedes it if it is now clear.

    Args:
        task: Locked by the caller.
        row: A row with problems.
        submission: The same submission, interpreted again.
    """
    return row if submission.content.problems else _add(task, submission, row, row.ls_generation)


def locked_task(task: AnnotationTask) -> AnnotationTask:
    """The task as it is now, within the caller's transaction; whoever else records something for it waits."""
    related = ("campaign", "tile__grid", "prediction")
    return AnnotationTask.objects.select_related(*related).select_for_update(of=("self",)).get(pk=task.pk)


def settle_task(task: AnnotationTask, cause: Annotation, *, reason: str = "") -> None:
    """Make a locked task's state and labels what its standing annotations say."""
    holding = standing_annotations(task.campaign).filter(task=task).select_related("annotator").last()
    names = dict(LandformClass.objects.values_list("pk", "name"))
    shapes = shapes_from_json(holding.shapes, names) if holding is not None else []
    changes = settle_labels(task, holding, shapes, Cause(cause, reason))
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


def record_deletion(task: AnnotationTask, ls_annotation_id: int, *, reason: str = "") -> Annotation | None:
    """Record that an annotation was deleted in Label Studio: a last row, and its labels are retired.

    An earlier annotation of the same task that stands holds again. Returns None for an annotation never heard of.
    """
    with transaction.atomic():
        task = locked_task(task)
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
        settle_task(task, tombstone, reason=reason)
    return tombstone


def withdraw_task(task: AnnotationTask) -> None:
    """Record that a task was deleted in Label Studio: its annotations are deleted, its labels retired.

    The task stays WITHDRAWN; it is not pushed again by itself, because somebody did not want it.
    """
    with transaction.atomic():
        task = locked_task(task)
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
    """Record that a task is in Label Studio although our row did not say so: annotators can work on it there."""
    with transaction.atomic():
        task = locked_task(task)
        if task.state not in (AnnotationTask.State.WITHDRAWN, AnnotationTask.State.PENDING):
            return
        before, task.ls_task_id = task.state, ls_task_id
        task.state = _state(_standing(task), task.campaign.ls_generation)
        task.save(update_fields=["state", "ls_task_id", "updated"])
        audit("labeling.adopt_task", task, before={"state": before}, after={"state": task.state})


def _add(task: AnnotationTask, submission: Submission, supersedes: Annotation | None, generation: int) -> Annotation:
    version, email = submission.version, submission.annotator
    classes = {landform.name: landform.pk for landform in task.campaign.classes.all()}
    return Annotation.objects.create(
        task=task,
        ls_generation=generation,
        ls_annotation_id=version.number,
        ls_updated_at=version.updated,
        kind=version.kind,
        annotator=get_user_model().objects.filter(email__iexact=email).order_by("pk").first() if email else None,
        annotator_name=email[:254],
        result=version.raw,
        verdict=submission.content.verdict[:100],
        shapes=[] if version.skipped else shapes_to_json(submission.content.labels, classes),
        makes_statement=not version.skipped and submission.content.makes_statement,
        lead_time=submission.lead_time,
        prediction=submission.prediction,
        correction_iou=None if version.skipped else submission.correction_iou,
        problems=submission.content.problems,
        mended=submission.content.mended,
        supersedes=supersedes,
    )


def _newest(task: AnnotationTask, ls_annotation_id: int) -> Annotation | None:
    """Its newest row in the campaign's present project: another project's annotation of that number is another one."""
    rows = task.annotations.filter(ls_generation=task.campaign.ls_generation, ls_annotation_id=ls_annotation_id)
    return rows.order_by("-id").first()


def _standing(task: AnnotationTask) -> list[Annotation]:
    """The newest row of each annotation that was not deleted."""
    return list(task.annotations.filter(superseded_by__isnull=True).exclude(kind=Annotation.Kind.DELETED))


def _state(standing: list[Annotation], generation: int) -> AnnotationTask.State:
    if any(row.kind == Annotation.Kind.SUBMITTED and not row.problems for row in standing):
        return AnnotationTask.State.SUBMITTED
    # What an earlier project left undone was given to annotators again, in this one.
    here = [row for row in standing if row.ls_generation == generation]
    if any(row.kind == Annotation.Kind.SUBMITTED for row in here):
        return AnnotationTask.State.RETURNED
    return AnnotationTask.State.SKIPPED if here else AnnotationTask.State.OPEN
