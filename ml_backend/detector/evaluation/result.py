"""The result of an evaluation, as plain data that is stored as JSON and can be compared with another later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from ml_backend.detector.errors import DatasetError
from ml_backend.detector.evaluation.coco import IOUS
from ml_backend.detector.evaluation.matching import Ints, Matches
from ml_backend.detector.evaluation.resampling import (
    RESAMPLES,
    Difference,
    Thresholds,
    difference,
    draw_tiles,
    resampled,
)

Interval = tuple[float, float] | None
DETAILS = ("per_image", "classes", "search", "intervals", "region_intervals", "breakdowns")


@dataclass(frozen=True)
class Evaluation:
    """Metrics on a split; all but counts, seconds and temperatures are in 0..1. None means undefined.

    Each metric is explained in :mod:`ml_backend.detector.evaluation.names`.

    Attributes:
        ap: mask AP averaged over IoU .50 to .95; ``ap50``, ``ap75``, ``ap30`` at one IoU. 0 without instances.
        ar: mask average recall over IoU .50 to .95.
        f1: best F1 at IoU .5 over score thresholds; ``precision`` and ``recall`` go with it.
        best_score_threshold: where that F1 is reached; 0 without correct detections.
        per_image: by file name: ``tp``, ``fp``, ``fn`` at that threshold, ``iou`` (mean of the matches), ``region``,
            ``modalities`` (those present); ``truths`` (instances per class) and ``detections`` (class, score, and as
            bits over IoU .30, .50, .55 ... .95 whether it is correct and whether it is ignored): the data for
            resampling.
        f1_at_threshold: F1 at ``score_threshold``, which was determined on validation; likewise precision, recall and
            F1 at .3.
        pixel_iou: of the union of detections kept at that threshold (or at the best one); likewise ``boundary_iou``.
        best_temperature: fitted on this split; ``temperature`` is the one fitted on validation.
        best_max_overlap: the share of the smaller of two detections that both may cover, by the best F1 on this split;
            determined only by :func:`.measure.evaluate_detector`, as in training.
        classes: names, in the order of ``truths``.
        search: ``window``, ``overlap`` and ``tta`` of the prediction; None and ``none`` are the defaults.
        intervals: 95 % bootstrap intervals over tiles; ``region_intervals`` the same, drawing whole regions. Empty
            without resampling.
        breakdowns: ``region``, ``size``, ``class``, ``modalities``: rows of ``name``, ``tiles``, ``instances``,
            ``ap50``, ``f1``, ``precision``, ``recall``, ``tp``, ``fp``, ``fn``.
    """

    ap: float
    ap50: float
    ap75: float
    ap30: float
    ar: float
    f1: float
    precision: float
    recall: float
    best_score_threshold: float
    n_tiles: int
    n_instances: int
    seconds: float
    per_image: dict[str, dict[str, Any]]
    f1_30: float | None = None
    score_threshold: float | None = None
    f1_at_threshold: float | None = None
    precision_at_threshold: float | None = None
    recall_at_threshold: float | None = None
    f1_30_at_threshold: float | None = None
    box_ap: float | None = None
    box_ap50: float | None = None
    box_ap75: float | None = None
    box_ap30: float | None = None
    box_ar: float | None = None
    boundary_ap: float | None = None
    rts_ap: float | None = None
    rts_ap_small: float | None = None
    rts_ap_medium: float | None = None
    rts_ap_large: float | None = None
    pixel_iou: float | None = None
    boundary_iou: float | None = None
    ece: float | None = None
    ece_calibrated: float | None = None
    temperature: float | None = None
    best_temperature: float | None = None
    best_max_overlap: float | None = None
    classes: tuple[str, ...] = ()
    search: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    region_intervals: dict[str, Interval] = field(default_factory=dict)
    breakdowns: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without NaN."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """The inverse of :meth:`to_json`; unknown keys are left out."""
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        return cls(**{**known, "classes": tuple(known.get("classes", ()))})

    def summary(self) -> dict[str, Any]:
        """The single figures, without intervals, break-downs and the per-image part."""
        return {key: value for key, value in self.to_json().items() if key not in DETAILS}

    @property
    def given_search(self) -> str:
        """The search settings that are not the defaults, as text."""
        return ", ".join(f"{name} {value}" for name, value in self.search.items() if value not in (None, "none"))

    @property
    def thresholds(self) -> Thresholds:
        """The score thresholds of F1."""
        return Thresholds(self.best_score_threshold, self.score_threshold)


def per_image_matches(matches: Matches, tile: int, own: Ints) -> dict[str, Any]:
    """One tile's part of the matches, as ``truths`` and ``detections`` of ``per_image``; ``own`` are its detections."""
    bits = 1 << np.arange(len(matches.ious))
    hit, ignored = bits @ matches.hit[:, own], bits @ matches.ignored[:, own]
    columns = (matches.label[own], matches.score[own], hit, ignored)
    return {
        "truths": matches.truths[tile].tolist(),
        "detections": [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)],
    }


def stored_matches(evaluation: Evaluation, names: list[str]) -> Matches:
    """The matches of an evaluation, its tiles in the order of the file names given.

    Raises:
        DatasetError: the evaluation was stored by an older version, without them.
    """
    tiles = [evaluation.per_image[name] for name in names]
    if any("detections" not in tile for tile in tiles):
        raise DatasetError(
            "An evaluation without the detections of each tile cannot be resampled: evaluate the checkpoint again."
        )
    counts = [len(tile["detections"]) for tile in tiles]
    table = np.array([row for tile in tiles for row in tile["detections"]], dtype=np.float64).reshape(-1, 4)
    hit, ignored = (
        (table[:, column].astype(np.int64) >> np.arange(len(IOUS))[:, None] & 1).astype(bool) for column in (2, 3)
    )
    truths = np.array([tile["truths"] for tile in tiles], dtype=np.int64).reshape(len(tiles), -1)
    return Matches(
        IOUS, np.repeat(np.arange(len(tiles)), counts), table[:, 0].astype(np.int64), table[:, 1], hit, ignored, truths
    )


def compare_evaluations(
    a: Evaluation, b: Evaluation, *, resamples: int = RESAMPLES, seed: int = 0, by_region: bool = False
) -> dict[str, Difference]:
    """Paired bootstrap of the difference b - a of two evaluations of the same tiles: by metric (AP, F1, ...).

    Both are evaluated on the same samples, so that difficulties common to both cancel out.

    Args:
        a: of one detector (the champion, say).
        b: of another one.
        resamples: number of samples.
        seed: of the samples.
        by_region: draw whole regions instead of tiles (see :func:`.resampling.draw_tiles`).

    Raises:
        DatasetError: they were not made on the same tiles, classes and instances.
    """
    names = sorted(a.per_image)
    if other := sorted(set(a.per_image) ^ set(b.per_image)):
        raise DatasetError(
            f"The two evaluations are of different tiles ('{other[0]}' is in one only): evaluate both on one split."
        )
    if not names:
        raise DatasetError("The two evaluations hold no tiles: evaluate both on a split that has some.")
    first, second = stored_matches(a, names), stored_matches(b, names)
    if a.classes != b.classes or not np.array_equal(first.truths, second.truths):
        raise DatasetError("The two evaluations are of different annotations: evaluate both on one dataset version.")
    blocks = [a.per_image[name]["region"] for name in names] if by_region else None
    once = np.ones((1, len(names)), dtype=np.int64)
    weights = np.concatenate([once, draw_tiles(len(names), resamples, seed, blocks)])
    values_a, values_b = resampled(first, a.thresholds, weights), resampled(second, b.thresholds, weights)
    return {
        name: difference(values_a[name][1:], values_b[name][1:], float(values_a[name][0]), float(values_b[name][0]))
        for name in values_a
        if name in values_b
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
