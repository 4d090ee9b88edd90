"""Trainings of a retraining: planned together, finished one by one."""

import shutil
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from contracts.checkpoint import CARD_FILE, LOG_FOLDER, WEIGHTS_FILE
from contracts.stages import Stage
from thawloop.catalog.models import Modality
from thawloop.core.services import audit
from thawloop.core.storage import publish_directory
from thawloop.training.architecture import Architecture
from thawloop.training.models import Retraining, TrainingRun
from thawloop.training.selectors.plan import SCORES, TrainingPlan, detector_config, plan_training
from thawloop.training.selectors.state import CampaignState


def plan_runs(retraining: Retraining) -> list[TrainingRun]:
    """Write down every training of a retraining whose release is there; the last one makes the model.

    The plan is made once, so that settings changed meanwhile concern the next retraining.
    """
    campaign, release = retraining.campaign, retraining.release
    if release is None:
        raise ValueError(f"{retraining} has no release to plan with")
    state = CampaignState(campaign)
    plan = plan_training(state, Architecture.wanted(campaign, release.definition))
    modalities = {row.name: row for row in Modality.objects.filter(name__in=[stage.pretrains for stage in plan.stages])}
    runs = []
    for stage in plan.stages:
        config = detector_config(state.settings, stage, seed=retraining.seed)
        run = TrainingRun(
            retraining=retraining,
            stage=TrainingRun.Stage.PRETRAIN if stage.pretrains else TrainingRun.Stage.FINETUNE,
            modality=modalities.get(stage.pretrains),
            config=config,
            seed=config["seed"],
            init=_start(retraining, plan, stage),
        )
        runs.append(run)
    with transaction.atomic():
        for run in runs:
            run.save()
        named = [stage.name for stage in plan.stages]
        audit("training.plan_runs", retraining, after={"runs": named, "start": runs[-1].init})
    return runs


def _start(retraining: Retraining, plan: TrainingPlan, stage: Stage) -> dict[str, Any]:
    """`TrainingRun.init` of a stage."""
    if stage.continues and plan.champion:
        return {"checkpoint": plan.champion.path}
    paths = {name: plan.unimodal.get(name) or pretrained_path(retraining, name) for name in stage.sources}
    return {"unimodal": paths} if paths else {}


def settle_anchor(run: TrainingRun, anchor: str, scores: dict[str, float]) -> None:
    """Write down which modality a fine-tuning adds the others to. Done once: a later call changes nothing.

    Args:
        run: The fine-tuning, planned without an anchor; it has it afterwards.
        anchor: Name of the modality.
        scores: What it was chosen by, per modality; empty where nothing could be measured.
    """
    with transaction.atomic():
        row = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run.pk)
        if not row.config["anchor"]:
            row.config["anchor"], row.init[SCORES] = anchor, scores
            row.save(update_fields=["config", "init"])
            audit("training.settle_anchor", row, after={"anchor": anchor, "scores": scores})
    run.config, run.init = row.config, row.init


def pretrained_path(retraining: Retraining, modality: str) -> str:
    """Artifact name of the weights that a retraining pretrains for a modality."""
    return f"models/{retraining.campaign.name}/{retraining.campaign.name}-r{retraining.number}-{modality}"


def finetuned_path(retraining: Retraining) -> str:
    """Artifact name of the model that a retraining makes."""
    return f"models/{retraining.campaign.name}/{retraining.campaign.name}-v{retraining.number}"


def publish_checkpoint(run: TrainingRun, checkpoint: Path) -> str:
    """Copy a trained checkpoint (weights, card and log, not its resume state) to the artifacts; returns its name.

    Raises:
        StorageFull: the disk is full.
    """
    name = pretrained_path(run.retraining, run.modality.name) if run.modality else finetuned_path(run.retraining)
    size = sum((checkpoint / file).stat().st_size for file in (WEIGHTS_FILE, CARD_FILE))
    # An earlier attempt of this very run may have published it; training again from its resume state gives the same.
    with publish_directory(name, replace=True, needed_bytes=size) as folder:
        for file in (WEIGHTS_FILE, CARD_FILE):
            shutil.copyfile(checkpoint / file, folder / file)
        if (checkpoint / LOG_FOLDER).is_dir():
            shutil.copytree(checkpoint / LOG_FOLDER, folder / LOG_FOLDER)
    return name


def record_run(
    run: TrainingRun, path: str, *, metrics: dict[str, Any], seconds: float, peak_memory_mb: float, device: str
) -> None:
    """Write down what a training gave and cost. Done once: a later call changes nothing."""
    with transaction.atomic():
        row = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run.pk)
        if row.path:
            return
        row.path, row.metrics, row.seconds = path, metrics, seconds
        row.peak_memory_mb, row.device, row.finished = peak_memory_mb, device, timezone.now()
        row.save(update_fields=["path", "metrics", "seconds", "peak_memory_mb", "device", "finished"])
        audit("training.record_run", row, after={"path": path, "seconds": seconds, "device": device})
