"""Training: one function for unimodal pretraining, joint training, warm starts and multimodal fine-tuning."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ml_backend.detector.checkpoint import open_checkpoint, write_checkpoint
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.data import TrainingBatches
from ml_backend.detector.dataset import DatasetSpec, read_dataset
from ml_backend.detector.devices import choose_device, peak_memory_mb
from ml_backend.detector.errors import DeviceError, TrainingDivergedError, TrainingStoppedError
from ml_backend.detector.evaluation import evaluate_detector
from ml_backend.detector.inference import Detector
from ml_backend.detector.model.build import build_model
from ml_backend.detector.model.pretrained import load_pretrained
from ml_backend.detector.training.runfolder import RunFolder
from ml_backend.detector.training.warmstart import Init, WarmStart, open_init
from ml_backend.detector.validation import check_dataset

Progress = Callable[[float, str], None]
TRAINING_SHARE = 0.95  # of the progress bar; the rest is the evaluation at the end
NO_DECAY = ("bias", "norm", "rel_pos")


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        checkpoint: folder of the published checkpoint.
        metrics: of the validation split (:meth:`Evaluation.summary`); empty when there is none.
        seconds: of training and evaluation, over all resumed parts.
        peak_memory_mb: of the GPU, or of the process.
        iterations: optimizer steps done.
    """

    checkpoint: Path
    metrics: dict[str, Any]
    seconds: float
    peak_memory_mb: float
    iterations: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "checkpoint": str(self.checkpoint)}


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

    Args:
        dataset_dir: see :mod:`ml_backend.detector.dataset`.
        out_dir: its own folder; the checkpoint is published as ``out_dir/checkpoint``.
        config: what to train.
        init: a checkpoint of the same architecture, or ``{modality: unimodal checkpoint}``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        progress: called with the share done (0..1) and a line of text, at most once a second.
        should_stop: asked after every step; when it says yes, the state is saved and TrainingStoppedError raised.
        resume: False discards what ``out_dir`` holds of an earlier training.

    Raises:
        DetectorError: bad dataset, configuration, checkpoint or device; divergence; or a stop that was asked for.
    """
    dataset = read_dataset(dataset_dir)
    config = config.resolve(dataset)
    target = choose_device(device)
    start = open_init(init, config, dataset)
    folder = RunFolder(Path(out_dir))
    checksum = dataset.checksum
    identity = {"config": config.to_json(), "dataset": checksum, "init": start.lineage()}
    finished = folder.claim(identity, resume)
    if finished is not None:
        return TrainResult(**{**finished, "checkpoint": folder.checkpoint})
    splits = ["train", *(["val"] if dataset.has_split("val") or config.eval_interval else [])]
    if progress:
        progress(0.0, f"checking {dataset.path}")
    specs = check_dataset(dataset, config.modalities, splits)
    dataset = dataset.with_modalities(tuple(start.normalise(spec) for spec in specs))
    devices = [target] if target.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        return _Training(dataset, checksum, config, start, folder, target, progress, should_stop).run()


class _Training:
    """The state of one training while it runs."""

    def __init__(
        self,
        dataset: DatasetSpec,
        checksum: str,
        config: DetectorConfig,
        start: WarmStart,
        folder: RunFolder,
        device: torch.device,
        progress: Progress | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.dataset, self.checksum, self.config, self.start = dataset, checksum, config, start
        self.folder, self.device = folder, device
        self.progress = progress or (lambda share, text: None)
        self.should_stop = should_stop or (lambda: False)
        self.evaluates = dataset.has_split("val") and bool(dataset.usable_tiles("val"))
        torch.manual_seed(config.seed)
        self.model = build_model(config, dataset.modalities, len(dataset.classes))
        self.init = {**({} if start.whole else load_pretrained(self.model, config)), **start.lineage()}
        start.apply(self.model, config, dataset.modalities)
        freeze(self.model, config)
        self.model.to(device)
        self.optimizer = make_optimizer(self.model, config)
        self.step = 0
        self.seconds = 0.0
        self.best: dict[str, Any] = {}
        self._started = time.perf_counter()
        self._restore()

    def run(self) -> TrainResult:
        """Do the remaining steps, evaluate, publish."""
        workers = min(4, os.cpu_count() or 1) if self.device.type == "cuda" else 0
        batches = DataLoader(
            TrainingBatches(self.dataset, self.config),
            batch_size=None,
            sampler=range(self.step, self.config.iterations),
            num_workers=workers,
        )
        reported = 0.0
        for batch in batches:
            began = time.perf_counter()
            loss = self._step(batch)
            self.step += 1
            now = time.perf_counter()
            if now - reported > 1 or self.step == self.config.iterations:
                self._report(f"loss {loss:.2f} {now - began:.2f} s/it")
                reported = now
            self._after_step()
        metrics = self.best.get("metrics") or (self._evaluate() if self.evaluates else {})
        return self._publish(metrics)

    def _step(self, batch: dict[str, Any]) -> float:
        """One optimizer step; returns the loss."""
        model: Any = self.model
        model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        # sampling of RoIs and stochastic depth depend on the step alone, so that a resumed training repeats them
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        try:
            data = model.data_preprocessor(batch, training=True)
            loss, _ = model.parse_losses(model(**data, mode="loss"))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        except torch.cuda.OutOfMemoryError:
            raise DeviceError(
                f"The GPU's memory does not hold a batch of {self.config.batch_size} tiles: use a batch size of "
                f"{max(1, self.config.batch_size // 2)} or a smaller image size."
            ) from None
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            self._diverge()
        self.optimizer.step()
        return float(loss.detach())

    def _after_step(self) -> None:
        """Evaluate, save and stop where it is time to."""
        done = self.step == self.config.iterations
        if self.config.eval_interval and (done or self.step % self.config.eval_interval == 0) and self.evaluates:
            metrics = self._evaluate()
            if not self.best or metrics["ap50"] >= self.best["metrics"]["ap50"]:
                weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
                self.best = {"metrics": metrics, "step": self.step, "weights": weights}
        stopping = self.should_stop() and not done
        if done or stopping or self.step % self.config.save_interval == 0:
            self._save()
        if stopping:
            raise TrainingStoppedError(
                f"Training stopped as asked at step {self.step} of {self.config.iterations}: "
                f"the same command continues it from {self.folder.path}."
            )

    def _evaluate(self) -> dict[str, Any]:
        detector = Detector(self.model, self.config, self.dataset.classes, self.dataset.modalities, self.device)
        return evaluate_detector(
            detector, self.dataset, "val", progress=lambda share, text: self._report(text, share)
        ).summary()

    def _report(self, text: str, evaluated: float = 0.0) -> None:
        share = TRAINING_SHARE * self.step / self.config.iterations
        if self.step == self.config.iterations:
            share += (1 - TRAINING_SHARE) * evaluated
        self.progress(share, f"iter {self.step}/{self.config.iterations} {text}")

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self._started

    def _save(self) -> None:
        self.folder.save_state(
            {
                "step": self.step,
                "seconds": self._elapsed(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best": self.best,
            }
        )

    def _restore(self) -> None:
        state = self.folder.load_state(self.device)
        if state is None:
            return
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _diverge(self) -> None:
        """Keep the last state as a checkpoint, and refuse to go on."""
        state = self.folder.load_state(torch.device("cpu"))
        kept = "no checkpoint had been saved yet"
        if state is not None:
            kept = f"the last good checkpoint (step {state['step']}) is {self.folder.checkpoint}"
            write_checkpoint(self.folder.checkpoint, state["model"], self._card({}, state["step"]))
        raise TrainingDivergedError(
            f"The loss or its gradient stopped being a number at step {self.step + 1} of {self.config.iterations}; "
            f"{kept}: train with a lower learning rate than {self.config.learning_rate:g} or a longer warmup."
        )

    def _publish(self, metrics: dict[str, Any]) -> TrainResult:
        weights = self.best.get("weights") or self.model.state_dict()
        card = self._card(metrics, self.best.get("step", self.step))
        write_checkpoint(self.folder.checkpoint, weights, card)
        result = TrainResult(
            open_checkpoint(self.folder.checkpoint).path,
            metrics,
            self._elapsed(),
            peak_memory_mb(self.device),
            self.step,
        )
        self.folder.finish(result.to_json())
        self.progress(1.0, f"done: {self.folder.checkpoint}")
        return result

    def _card(self, metrics: dict[str, Any], step: int) -> dict[str, Any]:
        return {
            "config": self.config.to_json(),
            "classes": list(self.dataset.classes),
            "modalities": [m.to_json() for m in self.dataset.modalities],
            "anchor": self.config.anchor,
            "metrics": metrics,
            "iterations": step,
            "dataset": {
                "name": self.dataset.name,
                "version": self.dataset.version,
                "checksum": self.checksum,
            },
            "init": self.init,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def learning_rate(step: int, config: DetectorConfig) -> float:
    """Linear warmup, then a cosine down to a hundredth of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.iterations - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def make_optimizer(model: nn.Module, config: DetectorConfig) -> torch.optim.Optimizer:
    """AdamW over what is not frozen, without weight decay on norms, biases and relative positions."""
    plain: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if any(part in name for part in NO_DECAY) else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def freeze(model: nn.Module, config: DetectorConfig) -> None:
    """Stop the gradient of the configured parts."""
    prefixes = {"neck": "neck.", "rpn": "rpn_head.", "roi_head": "roi_head."}
    frozen = tuple(prefixes.get(part, f"backbone.branches.{part}.") for part in config.freeze)
    for name, parameter in model.named_parameters():
        if frozen and name.startswith(frozen):
            parameter.requires_grad_(False)
