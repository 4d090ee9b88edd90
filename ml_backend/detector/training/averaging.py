"""The moving average of the weights, which judges and generalises better than the last step's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows it by ``update_parameters``.

    The decay is at most (1 + n) / (10 + n) after n steps (as in TensorFlow's ExponentialMovingAverage), so that short
    trainings are not averages of their first steps.
    """

    @torch.no_grad()
    def follow(averages: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        count = int(steps)
        kept = min(decay, (1 + count) / (10 + count))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight.to(average.dtype), 1 - kept)

    return AveragedModel(model, multi_avg_fn=follow)
