"""Which weights are published: the best on validation; and when there is no hope of better ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

MEASURE = "ap50"


@dataclass(frozen=True)
class Selection:
    """The best evaluation so far.

    Attributes:
        metrics: of the best weights; empty before the first evaluation.
        step: of the best weights.
        weights: the best ones, on the CPU.
        stale: evaluations since mask AP50 last rose.
    """

    metrics: Mapping[str, Any]
    step: int
    weights: Mapping[str, Tensor]
    stale: int

    @classmethod
    def none(cls) -> Selection:
        """Before the first evaluation."""
        return cls({}, 0, {}, 0)

    def after(self, metrics: Mapping[str, Any], step: int, weights: Mapping[str, Tensor]) -> Selection:
        """The selection after one more evaluation; of equals, the later weights are taken."""
        best = self.metrics.get(MEASURE, -1.0)
        stale = 0 if metrics[MEASURE] > best else self.stale + 1
        if metrics[MEASURE] < best:
            return Selection(self.metrics, self.step, self.weights, stale)
        return Selection(
            metrics, step, {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}, stale
        )
