"""Calibration of scores: reliability diagram, expected calibration error, and the temperature that corrects it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from ml_backend.detector.calibration import MARGIN, scaled
from ml_backend.detector.evaluation.coco import MATCH_IOU, Floats
from ml_backend.detector.evaluation.matching import Bools, Ints, Matches

BINS = 15
LOG_TEMPERATURES = (float(np.log(0.1)), float(np.log(10)))


@dataclass(frozen=True)
class Reliability:
    """Scores in bins of equal width from 0 to 1, as in Guo et al. 2017 ("On calibration of modern neural networks").

    Attributes:
        count: [bins], number of detections.
        confidence: [bins], their mean score; NaN in an empty bin.
        correct: [bins], share that is correct at IoU .5; NaN in an empty bin.
    """

    count: Ints
    confidence: Floats
    correct: Floats

    @property
    def error(self) -> float | None:
        """Expected calibration error: mean gap over the detections; None without any."""
        if not self.count.sum():
            return None
        gaps = np.nan_to_num(np.abs(self.confidence - self.correct))
        return float((gaps * self.count).sum() / self.count.sum())


def scores_and_outcomes(matches: Matches) -> tuple[Floats, Bools]:
    """Scores [n], and whether each detection is correct at IoU .5; those on ignored regions are left out."""
    row = matches.at(MATCH_IOU)
    counted = ~matches.ignored[row]
    return matches.score[counted], matches.hit[row, counted]


def reliability(scores: Floats, correct: Bools, bins: int = BINS) -> Reliability:
    """Sort scores [n] and outcomes [n] into bins."""
    index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    some = np.where(count > 0, count, 1)
    confidence = np.bincount(index, weights=scores, minlength=bins) / some
    share = np.bincount(index, weights=correct.astype(np.float64), minlength=bins) / some
    return Reliability(count, np.where(count > 0, confidence, np.nan), np.where(count > 0, share, np.nan))


def fit_temperature(scores: Floats, correct: Bools) -> float | None:
    """The temperature of maximum likelihood; None unless there are both correct and wrong detections.

    One parameter, minimising the mean negative log likelihood of ``sigmoid(logit(score) / T)`` for T from .1 to 10:
    without this limit there would be no optimum on a split that the scores separate perfectly.
    """
    if not correct.any() or correct.all():
        return None

    def loss(log_temperature: float) -> float:
        p = np.clip(scaled(scores, float(np.exp(log_temperature))), MARGIN, 1 - MARGIN)
        return float(-np.mean(np.where(correct, np.log(p), np.log1p(-p))))

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded").x))
