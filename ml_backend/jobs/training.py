"""Unimodal pretraining and multimodal fine-tuning of a retraining."""

from functools import partial
from pathlib import Path
from typing import Any

from contracts.stages import joint_start
from ml_backend.jobs.refusals import refusals
from ml_backend.jobs.resources import dataset_of, device_name, ready_device
from thawloop.core.jobs import JobContext, job
from thawloop.core.storage import artifact, explain_full_disk
from thawloop.training.models import TrainingRun
from thawloop.training.services import advance_retraining, finish_run, settle_anchor, step_failed, work_folder


@job(queue="gpu", on_failed=step_failed)
def pretrain(job: JobContext) -> dict[str, Any]:
    """Train one modality alone: args `run`."""
    return _train(job)


@job(queue="gpu", on_failed=step_failed)
def finetune(job: JobContext) -> dict[str, Any]:
    """Train the multimodal model from the checkpoints in the run's `init`: args `run`."""
    return _train(job)


def _train(job: JobContext) -> dict[str, Any]:
    run = TrainingRun.objects.select_related("retraining__campaign", "retraining__release", "modality").get(
        pk=job.args["run"]
    )
    if run.path:  # finished by an attempt that died before it advanced the retraining
        advance_retraining(run.retraining)
        return {"checkpoint": run.path}
    from ml_backend.detector import CannotResumeError, DetectorConfig, train

    device = ready_device()
    dataset = dataset_of(job, run.retraining)
    folder = work_folder(run)
    with refusals(job), explain_full_disk(folder.parent, f"the resume state of {run}"):
        folder.mkdir(parents=True, exist_ok=True)
        start = _start(run)
        if isinstance(start, dict) and not run.config["anchor"]:
            _choose_anchor(job, run, dataset, start, device)
        if isinstance(start, dict):
            start = joint_start(start, fusion=run.config["fusion"], anchor=run.config["anchor"])
        learn = partial(
            train,
            dataset,
            folder,
            DetectorConfig.from_json(run.config),
            init=start,
            device=device,
            progress=job.progress,
            should_stop=job.should_stop,
        )
        try:
            result = learn()
        except CannotResumeError as error:  # a damaged disk or an upgrade: only time is lost
            job.log.warning("the training starts again", why=str(error))
            result = learn(resume=False)
    path = finish_run(
        run,
        result.checkpoint,
        metrics=result.metrics,
        seconds=result.seconds,
        peak_memory_mb=result.peak_memory_mb,
        device=device_name(device),
    )
    return {"checkpoint": path, "seconds": result.seconds, "iterations": result.iterations, **result.metrics}


def _choose_anchor(job: JobContext, run: TrainingRun, dataset: Path, start: dict[str, Path], device: str) -> None:
    """Choose the modality whose own detector finds the most as the one that the others are added to.

    Models that this retraining has pretrained were evaluated on the same val tiles in their training.
    """
    from ml_backend.detector import DetectorConfig, anchor_scores, best_anchor, read_dataset

    def report(share: float, text: str) -> None:
        job.check_cancelled()
        job.progress(0.0, f"to choose the anchor: {text}")

    alone = run.retraining.runs.filter(stage=TrainingRun.Stage.PRETRAIN).select_related("modality")
    known = {own.modality.name: own.metrics for own in alone if own.modality}
    spec = read_dataset(dataset)
    config = DetectorConfig.from_json(run.config).resolve(spec)
    models = {name: start[name] for name in config.modalities}
    scores = anchor_scores(spec.seen_by(config.modalities), models, known, device, report)
    job.check_cancelled()
    anchor = best_anchor(scores, config)
    job.log.info("the anchor is chosen", anchor=anchor, found_alone=scores)
    settle_anchor(run, anchor, scores)


def _start(run: TrainingRun) -> Path | dict[str, Path] | None:
    if checkpoint := run.init.get("checkpoint"):
        return artifact(checkpoint)
    if unimodal := run.init.get("unimodal"):
        return {modality: artifact(path) for modality, path in unimodal.items()}
    return None
