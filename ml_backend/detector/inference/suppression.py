"""Suppression by mask: of two instances of a class that share too much of the smaller one, the better is kept.

The network suppresses by the IoU of boxes (.5), which is small for a small box inside a large one, so nested and
duplicate detections remain. Here masks are compared by their common pixels as a share of the smaller mask, which is 1
if one lies inside the other. True neighbours touch, but share hardly any pixels. Instances of different classes may
overlap.

The largest share is determined on validation when a model is trained (:mod:`..evaluation.overlaps`), and is in its
card.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import shapely

from ml_backend.detector.inference.instances import DetectedInstance

# if the card holds none; measured on the generated slumps, see docs/detector.md
DEFAULT_MAX_OVERLAP = 0.5
Box = tuple[int, int, int, int]


def survivors(scores: Sequence[float], overlaps: Iterable[tuple[int, int, float]], max_overlap: float) -> list[int]:
    """The instances that remain when, best first, each that shares too much with a kept one is left out.

    Args:
        scores: [n].
        overlaps: pairs of instances of one class, and the share of the smaller one that both cover.
        max_overlap: the largest share with which both are kept.

    Returns:
        Indices, best first; of equal scores, the earlier first.
    """
    conflicts: dict[int, list[int]] = {}
    for one, other, share in overlaps:
        if share > max_overlap:
            conflicts.setdefault(one, []).append(other)
            conflicts.setdefault(other, []).append(one)
    kept: dict[int, None] = {}
    for index in sorted(range(len(scores)), key=lambda index: -scores[index]):
        if not any(conflict in kept for conflict in conflicts.get(index, ())):
            kept[index] = None
    return list(kept)


def shared_of_smaller(one: DetectedInstance, other: DetectedInstance) -> float:
    """The pixels that both cover, as a share of the smaller one."""
    left, top = max(one.left, other.left), max(one.top, other.top)
    right, bottom = min(one.box[2], other.box[2]), min(one.box[3], other.box[3])
    if left >= right or top >= bottom:
        return 0.0
    box = (left, top, right, bottom)
    common = np.count_nonzero(one.within(*box) & other.within(*box))
    return common / max(min(one.pixels, other.pixels), 1)


class Suppressor:
    """Leaves out instances that share too much with a better one, while a tile is still being predicted.

    Args:
        max_overlap: the largest share of the smaller of two instances of a class with which both are kept.
    """

    def __init__(self, max_overlap: float) -> None:
        self._max_overlap = max_overlap
        self._waiting: list[DetectedInstance] = []

    def add(self, instances: Iterable[DetectedInstance]) -> None:
        """Add finished instances."""
        self._waiting += instances

    def take_finished(self, top: int | None = None, open_boxes: Sequence[Box] = ()) -> list[DetectedInstance]:
        """Remove and return the kept instances, best first, that no later instance can overlap.

        Args:
            top: later instances begin at this row or below; None if there are none.
            open_boxes: other rectangles in which later instances may lie.
        """
        clusters = _clusters([instance.box for instance in self._waiting], open_boxes)
        pending = {clusters[index] for index in range(len(self._waiting), len(clusters))}
        if top is not None:
            pending |= {clusters[i] for i, instance in enumerate(self._waiting) if instance.box[3] > top}
        done = [instance for instance, cluster in zip(self._waiting, clusters, strict=False) if cluster not in pending]
        self._waiting = [i for i, cluster in zip(self._waiting, clusters, strict=False) if cluster in pending]
        kept = survivors([instance.score for instance in done], _overlaps(done), self._max_overlap)
        return [done[index] for index in kept]


def _overlaps(instances: Sequence[DetectedInstance]) -> Iterable[tuple[int, int, float]]:
    for one, other in _intersecting([instance.box for instance in instances]):
        if instances[one].label == instances[other].label:
            yield one, other, shared_of_smaller(instances[one], instances[other])


def _intersecting(boxes: Sequence[Box]) -> list[tuple[int, int]]:
    """The pairs of boxes that have common pixels."""
    if len(boxes) < 2:
        return []
    shapes = shapely.box(*np.array(boxes, dtype=float).T)
    pairs = shapely.STRtree(shapes).query(shapes, predicate="intersects").T
    return [(one, other) for one, other in pairs.tolist() if one < other]


def _clusters(boxes: Sequence[Box], more: Sequence[Box]) -> list[int]:
    """A cluster number for each of ``boxes`` and then ``more``; boxes that are connected by intersections share it."""
    every = [*boxes, *more]
    cluster = list(range(len(every)))

    def find(index: int) -> int:
        while cluster[index] != index:
            cluster[index] = cluster[cluster[index]]
            index = cluster[index]
        return index

    for one, other in _intersecting(every):
        cluster[find(one)] = find(other)
    return [find(index) for index in range(len(every))]
