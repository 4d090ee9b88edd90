"""One training: unimodal pretraining, joint training, warm start or multimodal fine-tuning."""

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
    when ``init`` gives a checkpoint per modality. Interrupted at any point, even by SIGKILL, the same call continues
    from the last resume state and ends with the same weights (bitwise on a CPU); if the training is finished, it
    returns at once.

    In processes started by torchrun, the tiles of every step are divided among them; only the first process writes,
    evaluates and reports, and all return the same result.

    Args:
        dataset_dir: see :mod:`ml_backend.detector.dataset`.
        out_dir: folder of the training; the checkpoint is published as ``out_dir/checkpoint``.
        config: what to train.
        init: a checkpoint of the same architecture, or ``{modality: checkpoint trained on it}``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        progress: called with the share done (0..1) and a line of text, at most once a second.
        should_stop: called after every step; if it returns True, the state is saved and TrainingStoppedError raised.
        resume: False discards what ``out_dir`` holds of an earlier training.

    Raises:
        DetectorError: invalid dataset, configuration, checkpoint or device; divergence; or a requested stop.
    """
    folder = RunFolder(Path(out_dir))
    with join_team() as team, ExitStack() as held:
        report = progress if progress and team.is_first else silent
        setup = team.together(lambda: TrainingSetup.prepare(Path(dataset_dir), config, init, device, team))

        def check() -> TrainingSetup:
            if not resume:
                setup.start.keep_out_of(folder.path)
            report(0.0, f"checking {setup.dataset.path}")
            return team.together(setup.checked)

        checked = None if resume else check()
        team.first(lambda: held.enter_context(folder.lock()))
        if resume:
            team.first(lambda: folder.claim(setup.identity))
        if not resume or team.together(folder.finished) is None:
            valid = checked or check()
            devices = [setup.device] if setup.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                training = team.together(lambda: Training(valid, folder, team, report, should_stop or (lambda: False)))
                if not resume:  # only now: nothing is discarded for a training that cannot start
                    team.first(lambda: folder.claim(setup.identity, discard=True))
                team.together(training.restore)
                training.run()
        result = folder.finished()
    assert result is not None, "a training that ends without an error has written its result"
    return TrainResult(**{**result, "checkpoint": folder.checkpoint})
