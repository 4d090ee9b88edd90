"""Confidence intervals by bootstrap: over tiles, over regions, and of the difference between two detectors.

Drawing tiles with replacement means that every tile counts 0, 1, 2, ... times. AP of such a sample needs no new
matching: its precision-recall curve is a cumulative sum of weights over detections sorted by score. Only the points
where an instance is found matter, because interpolated precision has its maxima there, which makes a thousand samples
affordable. The result is COCO's AP of the sample, except for detections of exactly equal score within one tile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ml_backend.detector.evaluation.coco import Floats, mean_of_classes
from ml_backend.detector.evaluation.matching import Ints, Matches
from ml_backend.detector.evaluation.operating import counts_at

RESAMPLES = 1000
LEVEL = 0.95
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's
CHUNK = 4_000_000  # elements held in memory at once


@dataclass(frozen=True)
class Thresholds:
    """Score thresholds of F1: the best of the split, and the one determined on validation (if any)."""

    best: float
    stored: float | None


def draw_tiles(tiles: int, resamples: int, seed: int, blocks: Sequence[str | None] | None = None) -> Ints:
    """How often each tile counts in each bootstrap sample, int64 [resamples, tiles].

    Args:
        tiles: number of tiles.
        resamples: number of samples.
        seed: of the samples.
        blocks: the tiles' regions. If given, whole regions are drawn with all their tiles (cluster bootstrap), because
            neighbouring tiles are similar. A tile without a region is a block of its own.
    """
    rng = np.random.default_rng(seed)
    names = [(block, -1) if block is not None else ("", index) for index, block in enumerate(blocks or ())]
    index_of = {name: index for index, name in enumerate(dict.fromkeys(names))}
    block_of = np.array([index_of[name] for name in names]) if blocks is not None else np.arange(tiles)
    count = len(index_of) if blocks is not None else tiles
    drawn: Ints = rng.multinomial(count, np.full(count, 1 / max(count, 1)), size=resamples)
    return drawn[:, block_of]


def weighted_ap(matches: Matches, weights: Ints) -> Floats:
    """AP [R, T] at each IoU where tiles count ``weights`` [R, N] times; NaN where a sample holds no instance."""
    step = max(1, CHUNK // max(1, int(matches.truths.sum())))
    parts = []
    for start in range(0, len(weights), step):
        part = weights[start : start + step]
        by_class = [_class_ap(matches, label, part) for label in range(matches.truths.shape[1])]
        parts.append(mean_of_classes(np.stack(by_class, axis=-1)))
    return np.concatenate(parts)


def _class_ap(matches: Matches, label: int, weights: Ints) -> Floats:
    """AP [R, T] of one class."""
    wanted = weights @ matches.truths[:, label]
    result = np.where(wanted > 0, 0.0, np.nan)[:, None].repeat(len(matches.ious), axis=1)
    own = np.flatnonzero(matches.label == label)
    own = own[np.argsort(-matches.score[own], kind="stable")]
    tile = matches.tile[own]
    for row in range(len(matches.ious)):
        right = np.flatnonzero(matches.hit[row, own])
        if not len(right):
            continue
        wrong = np.flatnonzero(~matches.hit[row, own] & ~matches.ignored[row, own])
        before = np.searchsorted(right, wrong)  # index of the first correct one after each wrong one
        wrong, before = wrong[before < len(right)], before[before < len(right)]
        alarms = sparse.coo_array(
            (np.ones(len(wrong)), (tile[wrong], before)), shape=(weights.shape[1], len(right))
        ).tocsr()
        true = np.cumsum(weights[:, tile[right]], axis=1)
        false = np.cumsum((alarms.T @ weights.T).T, axis=1)
        precision = true / (true + false + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, true / np.maximum(wanted, 1)[:, None], side="right")
        steps = np.diff(reached, prepend=0, axis=1)
        result[:, row] = np.where(wanted > 0, (envelope * steps).sum(axis=1) / len(RECALLS), np.nan)
    return result


def resampled(matches: Matches, thresholds: Thresholds, weights: Ints) -> dict[str, Floats]:
    """The metrics with intervals, each [R]. Thresholds are fixed: they belong to the detector that is evaluated."""
    ap = weighted_ap(matches, weights)
    values = {
        "ap": ap[:, 1:].mean(axis=1),
        "ap50": ap[:, matches.at(0.5)],
        "ap75": ap[:, matches.at(0.75)],
        "ap30": ap[:, matches.at(0.3)],
    }
    suffixes = {"": thresholds.best, "_at_threshold": thresholds.stored}
    for suffix, threshold in suffixes.items():
        if threshold is None:
            continue
        counts = counts_at(matches, threshold).weighted(weights)
        values |= {f"f1{suffix}": counts.f1, f"precision{suffix}": counts.precision, f"recall{suffix}": counts.recall}
        values[f"f1_30{suffix}"] = counts_at(matches, threshold, 0.3).weighted(weights).f1
    return values


def intervals(values: Mapping[str, Floats], level: float = LEVEL) -> dict[str, tuple[float, float] | None]:
    """Percentile interval of each metric; None where fewer than half of the samples have a value."""
    tails = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    result: dict[str, tuple[float, float] | None] = {}
    for name, draws in values.items():
        known = draws[~np.isnan(draws)]
        low, high = np.percentile(known, tails) if len(known) else (np.nan, np.nan)
        result[name] = (float(low), float(high)) if 2 * len(known) > len(draws) else None
    return result


@dataclass(frozen=True)
class Difference:
    """How much better b is than a on the same bootstrap samples of tiles.

    Attributes:
        a: metric of the first; None if it is undefined.
        b: metric of the second; None if it is undefined.
        difference: b - a.
        low: lower limit of the 95 % interval of the difference.
        high: its upper limit.
        b_better: share of the samples in which b is strictly better.
    """

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    b_better: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def difference(a: Floats, b: Floats, point_a: float, point_b: float) -> Difference:
    """Compare a metric of two detectors, computed on the same samples [R]."""
    known = ~(np.isnan(a) | np.isnan(b))
    limits = intervals({"gap": np.where(known, b - a, np.nan)})["gap"]
    if limits is None or np.isnan([point_a, point_b]).any():
        first, second = (None if np.isnan(point) else point for point in (point_a, point_b))
        return Difference(first, second, None, None, None, None)
    better = float(((b - a)[known] > 0).mean())
    return Difference(point_a, point_b, point_b - point_a, *limits, better)
