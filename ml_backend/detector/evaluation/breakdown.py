"""Metrics broken down by region, size, class and available modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ml_backend.detector.evaluation.coco import MATCH_IOU, SIZES, Annotations
from ml_backend.detector.evaluation.matching import Matches, match
from ml_backend.detector.evaluation.operating import counts_at
from ml_backend.detector.evaluation.resampling import weighted_ap

NO_REGION = "(no region)"
SIZE_NAMES = {"small": "small (< 300 px)", "medium": "medium (300-2,000 px)", "large": "large (> 2,000 px)"}


def break_down(
    matches: Matches,
    threshold: float,
    *,
    classes: Sequence[str],
    regions: Sequence[str | None],
    modalities: Sequence[Sequence[str]],
    truth: dict[str, Any],
    predictions: Annotations,
    max_detections: int,
) -> dict[str, list[dict[str, Any]]]:
    """Rows per group, in the form of :attr:`Evaluation.breakdowns`.

    Args:
        matches: of all tiles.
        threshold: score threshold of F1 and counts.
        classes: names.
        regions: of each tile.
        modalities: available on each tile.
        truth: COCO dataset the matches come from.
        predictions: COCO results the matches come from.
        max_detections: per tile and class.
    """
    areas = {
        SIZE_NAMES[name]: match(truth, predictions, max_detections, ious=np.array([MATCH_IOU]), size=limits)[0]
        for name, limits in SIZES.items()
    }
    return {
        "region": _by_tile(matches, threshold, [region or NO_REGION for region in regions]),
        "size": [_row(name, own, threshold, _with_truths(own)) for name, own in areas.items()],
        "class": [
            _row(name, own, threshold, _with_truths(own))
            for name, own in ((name, matches.of_class(label)) for label, name in enumerate(classes))
        ],
        "modalities": _by_tile(matches, threshold, ["+".join(names) for names in modalities]),
    }


def _by_tile(matches: Matches, threshold: float, groups: Sequence[str]) -> list[dict[str, Any]]:
    of_tile = np.array(groups, dtype=object)
    return [
        _row(name, matches.only(of_tile == name), threshold, int((of_tile == name).sum()))
        for name in sorted(set(groups))
    ]


def _with_truths(matches: Matches) -> int:
    return int(matches.truths.any(axis=1).sum())


def _row(name: str, matches: Matches, threshold: float, tiles: int) -> dict[str, Any]:
    """``tiles`` counts the tiles of a region or with certain modalities; for a size or class, those that have one."""
    counts = counts_at(matches, threshold).total()
    once = np.ones((1, len(matches.truths)), dtype=np.int64)
    instances = int(matches.truths.sum())
    return {
        "name": name,
        "tiles": tiles,
        "instances": instances,
        "ap50": float(weighted_ap(matches, once)[0, matches.at(MATCH_IOU)]),
        "f1": float(counts.f1),
        "precision": float(counts.precision),
        "recall": float(counts.recall),
        "tp": int(counts.tp),
        "fp": int(counts.fp),
        "fn": int(counts.fn),
    }
