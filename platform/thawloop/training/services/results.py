"""What a retraining's steps found: each recorded together with the next step's job, in one transaction."""

import shutil
from pathlib import Path
from typing import Any

from django.db import transaction

from thawloop.core.services import audit
from thawloop.core.storage import artifact
from thawloop.registry.models import ModelVersion
from thawloop.releases.models import Release
from thawloop.training.errors import RetrainingConflict
from thawloop.training.models import Retraining, TrainingRun
from thawloop.training.services.gate import record_evaluation
from thawloop.training.services.runs import publish_checkpoint, record_run
from thawloop.training.services.steps import advance_locked, end, locked


def attach_release(retraining: Retraining, release: Release) -> None:
    """The labels are frozen; the files may still have to be written.

    Raises:
        RetrainingConflict: the retraining has ended meanwhile.
    """
    with transaction.atomic():
        row = _active(retraining.pk)
        if row.release_id is None:
            row.release = release
            row.save(update_fields=["release"])
            audit("training.attach_release", row, after={"release": release.version})
        advance_locked(row)


def finish_run(
    run: TrainingRun,
    checkpoint: Path,
    *,
    metrics: dict[str, Any],
    seconds: float,
    peak_memory_mb: float,
    device: str,
) -> str:
    """A training is done: publish its checkpoint, write down what it cost, go on, and drop its resume state.

    Args:
        run: The training.
        checkpoint: Folder of `model.safetensors` and `model.json`.
        metrics: On the val tiles.
        seconds: Training time.
        peak_memory_mb: Of the device.
        device: Where, e.g. `cpu`, `NVIDIA H100`.

    Returns:
        Artifact name of the published checkpoint.

    Raises:
        StorageFull: the disk is full.
    """
    path = publish_checkpoint(run, checkpoint)
    with transaction.atomic():
        row = locked(run.retraining_id)
        record_run(run, path, metrics=metrics, seconds=seconds, peak_memory_mb=peak_memory_mb, device=device)
        advance_locked(row)
    shutil.rmtree(work_folder(run), ignore_errors=True)
    return path


def work_folder(run: TrainingRun) -> Path:
    """Where a training keeps its private resume state until it is done."""
    return artifact(f"runs/{run.pk}")


def finish_evaluation(retraining: Retraining, version: ModelVersion, metrics: dict[str, Any]) -> None:
    """One model was measured on the retraining's test tiles; when all are, the gate decides.

    Raises:
        RetrainingConflict: the retraining has ended meanwhile.
    """
    with transaction.atomic():
        row = _active(retraining.pk)
        if row.release is None:
            raise RetrainingConflict(f"Retraining {row.number} has no release to measure on.")
        record_evaluation(version, row.release, metrics)
        advance_locked(row)


def finish_predicting(retraining: Retraining) -> None:
    """The new champion has predicted the campaign's tiles: the retraining is done."""
    with transaction.atomic():
        row = locked(retraining.pk)
        if row.state == Retraining.State.PREDICTING:
            end(row, Retraining.State.DONE)


def _active(retraining_id: int) -> Retraining:
    row = locked(retraining_id)
    if row.state in Retraining.FINISHED:
        raise RetrainingConflict(f"Retraining {row.number} is {row.state}; what its step found is no longer wanted.")
    return row
