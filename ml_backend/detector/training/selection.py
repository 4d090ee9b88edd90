"""Which weights are evaluated and published: their moving average if asked for, and the best on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

MEASURE = "ap50"


@dataclass(frozen=True)
class Selection:
    """The best evaluation so far.

    Attributes:
        metrics: of the best weights; empty before the first evaluation.
        step: of the best weights.
        weights: the best ones, on the CPU.
        stale: number of evaluations since mask AP50 last increased.
    """

    metrics: Mapping[str, Any]
    step: int
    weights: Mapping[str, Tensor]
    stale: int

    @classmethod
    def none(cls) -> Selection:
        """The selection before the first evaluation."""
        return cls({}, 0, {}, 0)

    def after(self, metrics: Mapping[str, Any], step: int, weights: Mapping[str, Tensor]) -> Selection:
        """The selection after one more evaluation; of equal ones, the later is taken."""
        best = self.metrics.get(MEASURE, -1.0)
        stale = 0 if metrics[MEASURE] > best else self.stale + 1
        if metrics[MEASURE] < best:
            return Selection(self.metrics, self.step, self.weights, stale)
        return Selection(
            metrics, step, {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}, stale
        )


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that is averaged by ``update_parameters``.

    The decay is at most (1 + n) / (10 + n) after n steps (as in TensorFlow's ExponentialMovingAverage), so that the
    first steps do not dominate the average in short trainings.
    """

    @torch.no_grad()
    def follow(averages: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        count = int(steps)
        kept = min(decay, (1 + count) / (10 + count))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight.to(average.dtype), 1 - kept)

    return AveragedModel(model, multi_avg_fn=follow)
