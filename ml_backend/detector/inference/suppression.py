"""One slump, one find: of two instances of a class that share too much of the smaller one, the surer is kept.

The network suppresses by the overlap of boxes (IoU .5), and a small box inside a large one overlaps little by that
measure: nested and doubled finds pass. Here masks are compared, and their common pixels are taken as a share of the
smaller mask, which is 1 for whatever lies inside another. True neighbours touch and share hardly any pixel. Instances
of different classes may lie in each other.

How much may be shared is measured on validation when a model is trained (:mod:`..evaluation.overlaps`), and is in its
card.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import shapely

from ml_backend.detector.inference.instances import DetectedInstance

# Where the card does not say. Measured on the generated slumps: see docs/detector.md.
DEFAULT_MAX_OVERLAP = 0.5
Box = tuple[int, int, int, int]


def survivors(scores: Sequence[float], overlaps: Iterable[tuple[int, int, float]], max_overlap: float) -> list[int]:
    """Which instances are kept when, best first, each that shares too much with a kept one is left out.

    Args:
        scores: [n].
        overlaps: pairs of instances of one class, and the share of the smaller one that both cover.
        max_overlap: the largest share that both may be kept with.

    Returns:
        Indices, best first; of equal scores the earlier is the better.
    """
    rivals: dict[int, list[int]] = {}
    for one, other, share in overlaps:
        if share > max_overlap:
            rivals.setdefault(one, []).append(other)
            rivals.setdefault(other, []).append(one)
    kept: dict[int, None] = {}
    for index in sorted(range(len(scores)), key=lambda index: -scores[index]):
        if not any(rival in kept for rival in rivals.get(index, ())):
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
    """Leaves out instances that share too much with a surer one, while a tile is still being looked at.

    Args:
        max_overlap: the largest share of the smaller of two instances of a class that both may be kept with.
    """

    def __init__(self, max_overlap: float) -> None:
        self._max_overlap = max_overlap
        self._waiting: list[DetectedInstance] = []

    def add(self, instances: Iterable[DetectedInstance]) -> None:
        """Take settled instances, whole."""
        self._waiting += instances

    def take_finished(self, top: int | None = None, open_boxes: Sequence[Box] = ()) -> list[DetectedInstance]:
        """Take the instances that are kept, best first, and that nothing still to come can touch.

        Args:
            top: what is still to come begins at this row or below; None when nothing is.
            open_boxes: where else something is still to come.
        """
        clusters = _clusters([instance.box for instance in self._waiting], open_boxes)
        held = {clusters[index] for index in range(len(self._waiting), len(clusters))}
        if top is not None:
            held |= {clusters[i] for i, instance in enumerate(self._waiting) if instance.box[3] > top}
        done = [instance for instance, cluster in zip(self._waiting, clusters, strict=False) if cluster not in held]
        self._waiting = [i for i, cluster in zip(self._waiting, clusters, strict=False) if cluster in held]
        kept = survivors([instance.score for instance in done], _overlaps(done), self._max_overlap)
        return [done[index] for index in kept]


def _overlaps(instances: Sequence[DetectedInstance]) -> Iterable[tuple[int, int, float]]:
    for one, other in _meeting([instance.box for instance in instances]):
        if instances[one].label == instances[other].label:
            yield one, other, shared_of_smaller(instances[one], instances[other])


def _meeting(boxes: Sequence[Box]) -> list[tuple[int, int]]:
    """The pairs of boxes that have common pixels."""
    if len(boxes) < 2:
        return []
    shapes = shapely.box(*np.array(boxes, dtype=float).T)
    pairs = shapely.STRtree(shapes).query(shapes, predicate="intersects").T
    return [(one, other) for one, other in pairs.tolist() if one < other]


def _clusters(boxes: Sequence[Box], more: Sequence[Box]) -> list[int]:
    """A number per box, of ``boxes`` and then ``more``, that those which meet, directly or through others, share."""
    every = [*boxes, *more]
    cluster = list(range(len(every)))

    def find(index: int) -> int:
        while cluster[index] != index:
            cluster[index] = cluster[cluster[index]]
            index = cluster[index]
        return index

    for one, other in _meeting(every):
        cluster[find(one)] = find(other)
    return [find(index) for index in range(len(every))]
