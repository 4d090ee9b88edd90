"""The training loop: from the first step, or the last saved one, to the published checkpoint."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ml_backend.detector.checkpoint import write_checkpoint
from ml_backend.detector.data import TrainingBatches
from ml_backend.detector.devices import device_name, peak_memory_mb, start_measuring_memory
from ml_backend.detector.errors import TrainingDivergedError, TrainingStoppedError
from ml_backend.detector.evaluation import METRICS, evaluate_detector
from ml_backend.detector.inference import Detector
from ml_backend.detector.inference.windows import SMALLEST
from ml_backend.detector.model.build import build_model
from ml_backend.detector.progress import Progress
from ml_backend.detector.training.gradient import Batch, StepGradient
from ml_backend.detector.training.log import TrainingLog
from ml_backend.detector.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from ml_backend.detector.training.parts import freeze, set_training_mode
from ml_backend.detector.training.precision import choose_precision, keep_predictions_in_float32
from ml_backend.detector.training.runfolder import RunFolder, TrainResult
from ml_backend.detector.training.selection import Selection, moving_average
from ml_backend.detector.training.setup import TrainingSetup
from ml_backend.detector.training.team import Team

TRAINING_SHARE = 0.95  # of the progress bar; the rest is the evaluation at the end


class Training:
    """The state of one training while it runs."""

    def __init__(
        self, setup: TrainingSetup, folder: RunFolder, team: Team, progress: Progress, should_stop: Callable[[], bool]
    ) -> None:
        self.setup, self.config, self.folder, self.team = setup, setup.config, folder, team
        self.progress, self.should_stop = progress, should_stop
        self.evaluates = setup.dataset.has_split("val") and bool(setup.dataset.usable_tiles("val"))
        start_measuring_memory(setup.device)
        torch.manual_seed(self.config.seed)
        self.model = build_model(self.config, setup.dataset.modalities, len(setup.dataset.classes))
        self.init = setup.load_initial_weights(self.model)
        freeze(self.model, self.config)
        self.model.to(setup.device)
        self.optimizer = make_optimizer(self.model, self.config, fresh_fusion=setup.start.fusion_is_fresh)
        self.average = moving_average(self.model, self.config.ema) if self.config.ema else None
        self.precision = choose_precision(self.config, setup.device)
        if self.precision != torch.float32:
            keep_predictions_in_float32(self.model)
        self.gradient = StepGradient(self.model, self.config, team, setup.device, self.precision)
        self.step = 0
        self.seconds = 0.0
        self.peak = 0.0
        self.selection = Selection.none()
        self.log: TrainingLog | None = None
        self._started = time.perf_counter()

    def run(self) -> None:
        """Do the remaining steps, evaluate, and publish the checkpoint."""
        self.team.first(self._open_log)
        try:
            self._run()
        finally:
            if self.log:
                self.log.close()

    def _run(self) -> None:
        batches = self._batches()
        done = self.step == self.config.iterations or self.team.any(self._out_of_patience)
        reported = 0.0
        while not done:
            batch = self.team.together(lambda: next(batches))
            began = time.perf_counter()
            loss = self._step(batch)
            self.step += 1
            now = time.perf_counter()
            if now - reported > 1 or self.step == self.config.iterations:
                self._report(f"loss {loss:.2f} {now - began:.2f} s/it")
                reported = now
            done = self._after_step()
        self.team.first(self._publish)

    @property
    def _published_model(self) -> nn.Module:
        """The model that is evaluated and published: with averaged weights, if they are averaged."""
        published: nn.Module = self.average.module if self.average else self.model
        return published

    @property
    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.selection.stale

    def _batches(self) -> Iterator[Batch]:
        workers = min(4, os.cpu_count() or 1) if self.setup.device.type == "cuda" else 0
        return iter(
            DataLoader(
                TrainingBatches(self.setup.dataset, self.config, self.gradient.slots),
                batch_size=None,
                sampler=range(self.step, self.config.iterations),
                num_workers=workers,
            )
        )

    def _step(self, batch: Batch) -> float:
        """One optimizer step; returns the loss."""
        began = time.perf_counter()
        set_training_mode(self.model, self.config)
        set_learning_rate(self.optimizer, self.step, self.config)
        losses = self.gradient(self.step, batch, self._report)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        names = (*losses, "gradient_norm")
        values: dict[str, float] = dict(zip(names, torch.stack([*losses.values(), norm]).tolist(), strict=True))
        self._log_step(values, time.perf_counter() - began)
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            self.team.first(lambda: self._diverge("The loss or its gradient", self.step + 1))
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.model)
        return values["loss"]

    def _open_log(self) -> None:
        self.log = TrainingLog(self.folder.path, self.step)

    def _log_step(self, values: Mapping[str, float], seconds: float) -> None:
        """Log the current step."""
        if self.log:
            rate, memory = learning_rate(self.step, self.config), peak_memory_mb(self.setup.device)
            so_far = {"seconds": self._elapsed(), "step_seconds": seconds, "learning_rate": rate, "memory_mb": memory}
            self.log.add("training", self.step + 1, **so_far, **values)

    def _after_step(self) -> bool:
        """Evaluate, save and stop if due; returns whether the training is done."""
        last = self.step == self.config.iterations
        if self.config.eval_interval and (last or self.step % self.config.eval_interval == 0) and self.evaluates:
            self.team.first(self._select)
        done = last or self.team.any(self._out_of_patience)
        stopping = self.team.any(self.should_stop()) and not done
        if done or stopping or self.step % self.config.save_interval == 0:
            self.team.first(self._save)
        if stopping:
            self.team.first(self._stop)
        return done

    def _require_finite_weights(self) -> None:
        """A step may make weights NaN although its loss is finite: they must be neither saved nor published."""
        for weights in (self.model.state_dict(), self._published_model.state_dict()):
            if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
                self._diverge("A weight", self.step)

    def _select(self) -> None:
        self._require_finite_weights()
        self.selection = self.selection.after(self._evaluate(), self.step, self._published_model.state_dict())

    def _stop(self) -> None:
        raise TrainingStoppedError(
            f"Training stopped as asked at step {self.step} of {self.config.iterations}: "
            f"the same command continues it from {self.folder.path}."
        )

    def _evaluate(self) -> dict[str, Any]:
        dataset, device = self.setup.dataset, self.setup.device
        side = max(SMALLEST, dataset.longest_side)
        detector = Detector(
            self._published_model,
            self.config,
            dataset.classes,
            dataset.modalities,
            device,
            (side, side),
            reduction=self.setup.reduction,
        )
        evaluation = evaluate_detector(detector, dataset, "val", progress=lambda share, text: self._report(text, share))
        if self.log:
            figures = {name: getattr(evaluation, name) for name in METRICS}
            self.log.add("validation", self.step, seconds=self._elapsed(), **figures)
        return evaluation.summary()

    def _report(self, text: str, evaluated: float = 0.0) -> None:
        share = TRAINING_SHARE * self.step / self.config.iterations
        if self.step == self.config.iterations:
            share += (1 - TRAINING_SHARE) * evaluated
        self.progress(share, f"iter {self.step}/{self.config.iterations} {text}")

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self._started

    def _peak(self) -> float:
        return max(self.peak, peak_memory_mb(self.setup.device))

    def _save(self) -> None:
        self._require_finite_weights()
        if self.log:
            self.log.sync()
        self.folder.save_state(
            {
                "step": self.step,
                "seconds": self._elapsed(),
                "peak": self._peak(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "micro": self.gradient.micro,
                "selection": dict(vars(self.selection)),
            }
        )

    def restore(self) -> None:
        """Load the folder's resume state, if there is one.

        Raises:
            CannotResumeError: it is damaged, or of another model.
        """
        state = self.folder.load_state()
        if state is None:
            return
        try:
            self.step, self.seconds, self.peak = state["step"], state["seconds"], state["peak"]
            self.selection = Selection(**state["selection"])
            self.gradient.micro = min(self.gradient.micro, state["micro"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average:
                self.average.load_state_dict(state["average"])
        except torch.OutOfMemoryError:
            raise  # a subclass of RuntimeError
        except (KeyError, TypeError, ValueError, RuntimeError):  # raised by torch for a state of another model
            raise self.folder.not_of_this_model() from None

    def _diverge(self, what: str, step: int) -> NoReturn:
        """Write the best or else the last saved weights as a checkpoint, and raise."""
        best, state = self.selection, self.folder.load_state()
        kept = "no checkpoint had been saved yet"
        if best.weights:
            kept = f"the best checkpoint so far (step {best.step}) is {self.folder.checkpoint}"
            self._write(best.weights, best.metrics, best.step)
        elif state is not None:
            kept = f"the last good checkpoint (step {state['step']}) is {self.folder.checkpoint}"
            self._write(_good_weights(state), {}, state["step"])
        raise TrainingDivergedError(
            f"{what} stopped being a number at step {step} of {self.config.iterations}; "
            f"{kept}: train with a lower learning rate than {self.config.learning_rate:g} or a longer warmup."
        )

    def _publish(self) -> None:
        best = self.selection
        metrics = dict(best.metrics) or (self._evaluate() if self.evaluates else {})
        weights = best.weights or self._published_model.state_dict()
        self._write(weights, metrics, best.step or self.step)
        result = TrainResult(self.folder.checkpoint, metrics, self._elapsed(), self._peak(), self.step)
        self.folder.finish(result.to_json())
        self.progress(1.0, f"done: {self.folder.checkpoint}")

    def _write(self, weights: Mapping[str, Tensor], metrics: Mapping[str, Any], step: int) -> None:
        write_checkpoint(self.folder.checkpoint, weights, self._card(metrics, step))
        if self.log:
            self.log.close()
        self.folder.publish_log()

    def _card(self, metrics: Mapping[str, Any], step: int) -> dict[str, Any]:
        training = {
            "seconds": self._elapsed(),
            "peak_memory_mb": self._peak(),
            "device": device_name(self.setup.device),
            "precision": str(self.precision).removeprefix("torch."),
            "tiles_at_once": self.gradient.micro,
            "processes": self.team.size,
        }
        return self.setup.card(self.init, dict(metrics), step, training)


def _good_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of a resume state that would be published."""
    average: dict[str, Tensor] | None = state["average"]
    if average is None:
        return dict(state["model"])
    return {name.removeprefix("module."): tensor for name, tensor in average.items() if name.startswith("module.")}
