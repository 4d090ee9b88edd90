"""Training: one function for unimodal pretraining, joint training, warm starts and multimodal fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.progress import Progress, silent
from ml_backend.detector.training.loop import Training
from ml_backend.detector.training.runfolder import RunFolder, TrainResult
from ml_backend.detector.training.setup import TrainingSetup
from ml_backend.detector.training.team import join_team
from ml_backend.detector.training.warmstart import Init


def train(
    dataset_dir: Path | str,
    out_dir: Path | str,
    config: DetectorConfig,
    *,
    init: Init = None,
    device: str = "auto",
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    resume: bool = True,
) -> TrainResult:
    """Train a detector on a dataset directory.

    With one modality in the configuration this is unimodal pretraining; with several, joint training, or fine-tuning
    when ``init`` gives a checkpoint per modality. Interrupted anywhere, even by SIGKILL, the same call continues from
    the last resume state and ends with the same weights (bitwise on a CPU); finished, it returns at once.

    Called in processes that torchrun started, it shares the tiles of every step among them; the first process alone
    writes, evaluates and reports, and all return the same.

    Args:
        dataset_dir: see :mod:`ml_backend.detector.dataset`.
        out_dir: its own folder; the checkpoint is published as ``out_dir/checkpoint``.
        config: what to train.
        init: a checkpoint of the same architecture, or ``{modality: checkpoint that knows it}``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        progress: called with the share done (0..1) and a line of text, at most once a second.
        should_stop: asked after every step; when it says yes, the state is saved and TrainingStoppedError raised.
        resume: False discards what ``out_dir`` holds of an earlier training.

    Raises:
        DetectorError: bad dataset, configuration, checkpoint or device; divergence; or a stop that was asked for.
    """
    folder = RunFolder(Path(out_dir))
    with join_team() as team, ExitStack() as held:
        told = progress if progress and team.leads else silent
        setup = team.together(lambda: TrainingSetup.prepare(Path(dataset_dir), config, init, device, team))

        def check() -> TrainingSetup:
            if not resume:
                setup.start.keep_out_of(folder.path)
            told(0.0, f"checking {setup.dataset.path}")
            return team.together(setup.checked)

        checked = None if resume else check()
        team.first(lambda: held.enter_context(folder.lock()))
        if resume:
            team.first(lambda: folder.claim(setup.identity))
        if not resume or team.together(folder.finished) is None:
            sound = checked or check()
            devices = [setup.device] if setup.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                training = team.together(lambda: Training(sound, folder, team, told, should_stop or (lambda: False)))
                if not resume:  # not before: nothing is discarded for a training that cannot begin
                    team.first(lambda: folder.claim(setup.identity, discard=True))
                team.together(training.restore)
                training.run()
        result = folder.finished()
    assert result is not None, "a training that ends without an error has written its result"
    return TrainResult(**{**result, "checkpoint": folder.checkpoint})
