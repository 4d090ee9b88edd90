"""Validation of outlines, and the pixels covered by an outline that crosses itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from ml_backend.detector.masks import rle_counts, segmentation_polygons

FARTHEST = 1e7  # largest absolute coordinate in pixels
MOST_POINTS = 50_000  # of a ring: checking a larger one may take minutes
MOST_CROSSINGS = 1 << 26  # of edges with rows of pixels: more would take gigabytes
Size = tuple[int, int]


@dataclass(frozen=True)
class Fault:
    """What is wrong with an outline: its kind, and text to end an error message with."""

    kind: str
    text: str


CROSSED, EMPTY, OUTSIDE, FEW_POINTS = "outline crosses itself", "no outline", "outline outside", "too few points"
COORDINATES, RLE, MANY_POINTS = "unusable coordinates", "unusable RLE", "too many points"


def segmentation_fault(size: Size, segmentation: Any) -> Fault | None:
    """What is wrong with a COCO segmentation on a tile of ``size`` (H, W); None if nothing is."""
    if isinstance(segmentation, dict):
        return _rle_fault(size, segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return Fault(EMPTY, "is empty")
    if fault := next(filter(None, map(_ring_fault, segmentation)), None):
        return fault
    for polygon in segmentation_polygons(segmentation):
        if not polygon.is_valid:
            return Fault(CROSSED, f"is not a valid polygon ({shapely.is_valid_reason(polygon)})")
        if not polygon.intersects(shapely.box(0, 0, size[1], size[0])):
            return Fault(OUTSIDE, "lies outside its tile")
    return None


def _ring_fault(ring: Any) -> Fault | None:
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
        kind = FEW_POINTS if isinstance(ring, list) and len(ring) % 2 == 0 else COORDINATES
        return Fault(kind, "needs at least three points (x, y, x, y, ...) in each polygon")
    if not all(type(value) in (int, float) and abs(value) < FARTHEST for value in ring):
        return Fault(COORDINATES, "has a coordinate that is not a number of pixels")
    if len(ring) > 2 * MOST_POINTS:
        return Fault(MANY_POINTS, f"has {len(ring) // 2:,} points, more than {MOST_POINTS:,} in one polygon")
    return None


def _rle_fault(size: Size, rle: dict[str, Any]) -> Fault | None:
    height, width = size
    if rle.get("size") != [height, width]:
        return Fault(RLE, f"is an RLE of size {rle.get('size')!r} on a tile of [{height}, {width}]")
    if "counts" not in rle:
        return Fault(RLE, "is an RLE without counts")
    try:
        runs = rle_counts(rle["counts"])
    except ValueError as error:
        return Fault(RLE, f"is an unreadable RLE ({error})")
    if sum(runs) != height * width:
        return Fault(RLE, f"is an RLE of {sum(runs)} pixels on a tile of {height * width}")
    return None if sum(runs[1::2]) else Fault(EMPTY, "is empty")


def winding(ring: Sequence[float], size: Size) -> npt.NDArray[np.int32]:
    """Winding number of a closed ring (x, y, x, y, ...) around the centre of each pixel, int32 [H, W].

    Odd means inside by the even-odd rule, non-zero inside by the winding rule; for a ring that does not cross itself
    both agree. Time and memory grow with the rows that the edges cross, not with how often they cross each other.

    Raises:
        ValueError: the edges cross more than :data:`MOST_CROSSINGS` rows.
    """
    start = np.asarray(ring, dtype=float).reshape(-1, 2)
    end = np.roll(start, -1, axis=0)
    height, width = size
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first, last = (np.clip(np.ceil(side - 0.5), 0, height).astype(int) for side in (low, high))
    counts = last - first
    if counts.sum() > MOST_CROSSINGS:
        raise ValueError("the outline crosses too many rows of pixels")
    edge = np.repeat(np.arange(len(start)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    step = end[edge] - start[edge]
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * step[:, 0] / step[:, 1]
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    turns = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(turns, (row, column), np.where(step[:, 1] > 0, 1, -1).astype(np.int32))
    around: npt.NDArray[np.int32] = turns.cumsum(axis=1, dtype=np.int32)[:, :width]
    return around
