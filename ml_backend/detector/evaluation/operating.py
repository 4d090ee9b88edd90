"""F1, precision and recall at a score threshold, and the best threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.detector.evaluation.coco import MATCH_IOU, Floats
from ml_backend.detector.evaluation.matching import Ints, Matches

MARGIN = 0.005  # a threshold lies at most this far below the lowest score that it keeps


@dataclass(frozen=True)
class Counts:
    """Numbers of correct, wrong and missed instances; arrays of one shape, e.g. [tiles] or [resamples]."""

    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    fn: npt.NDArray[np.int64]

    def weighted(self, weights: Ints) -> Counts:
        """Totals [R] of counts per tile [N] where tiles count ``weights`` [R, N] times."""
        return Counts(weights @ self.tp, weights @ self.fp, weights @ self.fn)

    def total(self) -> Counts:
        """Totals over everything, as arrays of shape []."""
        return Counts(self.tp.sum(), self.fp.sum(), self.fn.sum())

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall; NaN without instances and detections."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> Floats:
        """Share of the kept detections that is correct; NaN if none is kept."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> Floats:
        """Share of the instances that is found; NaN without instances."""
        return ratio(self.tp, self.tp + self.fn)


def ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Floats:
    """``part / whole``, NaN where ``whole`` is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def counts_at(matches: Matches, threshold: float, iou: float = MATCH_IOU) -> Counts:
    """Counts per tile [N] of the detections that score at least ``threshold``."""
    row, tiles = matches.at(iou), len(matches.truths)
    kept = (matches.score >= threshold) & ~matches.ignored[row]
    hit = matches.hit[row]
    tp = np.bincount(matches.tile[kept & hit], minlength=tiles)
    fp = np.bincount(matches.tile[kept & ~hit], minlength=tiles)
    return Counts(tp, fp, matches.truths.sum(axis=1) - tp)


@dataclass(frozen=True)
class Curve:
    """Precision and recall [P] by decreasing threshold, all classes together; one point per distinct score."""

    score: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def curve(matches: Matches, iou: float = MATCH_IOU) -> Curve:
    """The precision-recall curve; empty without detections or instances."""
    row, truths = matches.at(iou), int(matches.truths.sum())
    counted = ~matches.ignored[row]
    scores, hits = matches.score[counted], matches.hit[row, counted]
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order]
    # equal scores are kept or dropped together
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) and truths else np.zeros(0, int)
    tp, kept = np.cumsum(hits)[last], last + 1
    return Curve(scores[last], tp / kept, tp / max(truths, 1), 2 * tp / (kept + truths))


def best_threshold(matches: Matches, iou: float = MATCH_IOU) -> float:
    """The score threshold of the best F1; 0 without correct detections.

    It lies between the lowest kept score and the next one: other kernels and devices round scores differently, and
    would drop a detection whose score is exactly the threshold.
    """
    points = curve(matches, iou)
    if not len(points.f1) or not points.f1.any():
        return 0.0
    best = int(np.argmax(points.f1))
    below = points.score[best + 1] if best + 1 < len(points.score) else 0.0
    return float(max((points.score[best] + below) / 2, points.score[best] - MARGIN))
