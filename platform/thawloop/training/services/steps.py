"""The retraining state machine.

What is to be done next is read from what is there: a release that is ready, trainings with a checkpoint, evaluations, a
verdict. So a step may be repeated, and advancing may be tried by anybody at any time: whoever recorded a result (in the
same transaction), the reconciler, a person. Each step is a job with the key `retraining:<id>:<step>`.
"""

from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.utils import timezone

from thawloop.core.errors import Refused
from thawloop.core.jobs import enqueue
from thawloop.core.models import Job
from thawloop.core.services import audit
from thawloop.registry.models import ModelVersion
from thawloop.registry.services import register_model, request_refresh
from thawloop.releases.models import Release
from thawloop.training.models import Retraining, TrainingRun
from thawloop.training.services.gate import decide, missing_evaluations
from thawloop.training.services.runs import plan_runs

State = Retraining.State


@dataclass(frozen=True)
class Step:
    """A piece of work of a retraining: the job that does it."""

    name: str
    function: str
    args: dict[str, Any] = field(default_factory=dict)
    run: TrainingRun | None = None


def step_key(retraining_id: int, name: str = "") -> str:
    """Key of a step's job; without a name the beginning that all of the retraining's keys share."""
    return f"retraining:{retraining_id}:{name}"


def advance_retraining(retraining: Retraining, *, again: bool = False) -> Retraining:
    """Do what is due now, and have the next step's job there.

    Args:
        retraining: Any; one that has ended stays as it is.
        again: Ask once more for a step whose job failed or was cancelled (a person's retry).
    """
    with transaction.atomic():
        row = locked(retraining.pk)
        advance_locked(row, again=again)
    return row


def locked(retraining_id: int) -> Retraining:
    """The retraining, which nobody else advances, cancels or fails until the transaction ends."""
    rows = Retraining.objects.select_for_update(of=("self",)).select_related("campaign", "release")
    return rows.get(pk=retraining_id)


def advance_locked(row: Retraining, *, again: bool = False) -> None:
    """As `advance_retraining`, for a caller that holds the row."""
    if row.state in Retraining.FINISHED:
        return
    try:
        # Its own savepoint: what a refusal leaves half done is undone, and the failure is still recorded.
        with transaction.atomic():
            state, steps = _outstanding(row)
    except Refused as refusal:
        end(row, State.FAILED, str(refusal))
        return
    _enter(row, state)
    if state in Retraining.FINISHED:
        return
    for step in steps:
        if row.state not in Retraining.FINISHED:
            _have_done(row, step, again=again)


def end(row: Retraining, state: str, error: str = "") -> None:
    """End a retraining whose row the caller holds."""
    row.error = error
    _enter(row, state, reason=error)


def step_failed(job: Job, error: str) -> None:
    """A step's job was given up or cancelled: so is the retraining, unless the step's result is there all the same.

    Called in the transaction that ends the job (`on_failed`), whose row says why.
    """
    if retraining := job.args.get("retraining"):
        with transaction.atomic():
            advance_locked(locked(retraining))


def _outstanding(row: Retraining) -> tuple[str, list[Step]]:
    """The state that follows from what is there, and what must be done to leave it.

    Raises:
        Refused: a trained checkpoint cannot be read, or the campaign's settings make no sense.
    """
    if row.release is None or row.release.state != Release.State.READY:
        return State.RELEASING, [Step("release", "thawloop.training.jobs.release")]
    runs = list(row.runs.select_related("modality")) or plan_runs(row)
    untrained = [run for run in runs if not run.path]
    if pretraining := [run for run in untrained if run.stage == TrainingRun.Stage.PRETRAIN]:
        return State.PRETRAINING, [_training(run, f"pretrain:{run.modality}", "pretrain") for run in pretraining]
    if untrained:
        return State.FINETUNING, [_training(run, "finetune", "finetune") for run in untrained]
    version = ModelVersion.objects.filter(retraining=row).first() or _register(row, runs[-1])
    if row.promoted is None and missing_evaluations(row):
        return State.EVALUATING, [Step("evaluate", "ml_backend.jobs.evaluate")]
    if row.promoted is None:
        decide(row)
    if row.promoted:
        args = {"model_version": version.pk}
        return State.PREDICTING, [Step("predict", "ml_backend.jobs.predict", args=args)]
    return State.DONE, []


def _register(row: Retraining, run: TrainingRun) -> ModelVersion:
    """Enter what a retraining's last run made in the registry."""
    started_from = run.init.get("checkpoint") or ""
    ids = {"release": row.release_id, "retraining": row.pk}
    return register_model(row.campaign, run.path, number=row.number, parent=started_from, **ids)


def _training(run: TrainingRun, name: str, function: str) -> Step:
    return Step(name, f"ml_backend.jobs.{function}", args={"run": run.pk}, run=run)


def _have_done(row: Retraining, step: Step, *, again: bool) -> None:
    """Have a job for a step, or learn from the last one that there will be no result."""
    key = step_key(row.pk, step.name)
    last = Job.objects.filter(key=key).order_by("-created").first()
    if last is not None and not last.is_active and not again:
        if last.state == Job.State.CANCELLED:
            end(row, State.CANCELLED, last.error)
        else:
            end(row, State.FAILED, last.error or f"The step `{step.name}` ended (job {last.pk}) but left no result.")
        return
    args = {"retraining": row.pk, "campaign": row.campaign_id, **step.args}
    job = enqueue(step.function, key=key, args=args)
    if step.run is not None:
        TrainingRun.objects.filter(pk=step.run.pk).update(job=job)


def _enter(row: Retraining, state: str, *, reason: str = "") -> None:
    if row.state == state:
        return
    before, row.state = row.state, state
    row.finished = timezone.now() if state in Retraining.FINISHED else None
    row.save(update_fields=["state", "finished", "error"])
    audit("training.advance", row, before={"state": before}, after={"state": state}, reason=reason)
    if state == State.DONE and row.promoted:
        request_refresh(row.campaign)
