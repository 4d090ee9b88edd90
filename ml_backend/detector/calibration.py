"""Calibration of a checkpoint's scores on the validation split: score threshold, temperature, largest overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

MARGIN = 1e-6  # keeps logits of 0 and 1 finite


@dataclass(frozen=True)
class Calibration:
    """Read from the metrics of the validation split in a checkpoint's card; None where they could not be determined.

    Attributes:
        temperature: the probability that an instance of score s is right (IoU .5) is sigmoid(logit(s) / temperature);
            above 1 the detector is overconfident. Guo et al. 2017, for one class against the rest.
        score_threshold: instances with at least this score are kept; it gave the best F1 (IoU .5) on validation.
        max_overlap: the largest share of the smaller of two instances of a class that both may cover; if they share
            more, only the one with the higher score is kept. See :mod:`.inference.suppression`.
    """

    temperature: float | None = None
    score_threshold: float | None = None
    max_overlap: float | None = None

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any]) -> Calibration:
        """Read ``metrics`` of a checkpoint's card; a threshold of 0 means that there were no correct detections."""
        names = ("best_temperature", "best_score_threshold", "best_max_overlap")
        return cls(*(metrics.get(name) or None for name in names))

    def probability(self, score: float) -> float | None:
        """The calibrated confidence of an instance with this score; None without a temperature."""
        return None if self.temperature is None else float(scaled(np.array([score]), self.temperature)[0])


def scaled(scores: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Scores [n] after temperature scaling."""
    probabilities: npt.NDArray[np.float64] = expit(logit(np.clip(scores, MARGIN, 1 - MARGIN)) / temperature)
    return probabilities
