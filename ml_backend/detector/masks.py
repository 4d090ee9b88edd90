"""Conversion between segmentations, rings and masks.

Coordinates are pixel corners: a tile of W x H pixels spans [0, W] x [0, H].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from pycocotools import mask as coco_mask

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]


def polygons_mask(polygons: Sequence[shapely.Polygon], height: int, width: int) -> BoolArray:
    """The pixels bool [H, W] whose centre lies in any of the polygons."""
    shapes = [(polygon, 1) for polygon in polygons if not polygon.is_empty]
    if not shapes:
        return np.zeros((height, width), dtype=bool)
    burnt: npt.NDArray[np.uint8] = rasterio.features.rasterize(shapes, out_shape=(height, width), dtype="uint8")
    return burnt.astype(bool)


def segmentation_polygons(segmentation: Sequence[Sequence[float]]) -> list[shapely.Polygon]:
    """COCO's polygon list (x, y, x, y, ...) as shapely polygons; several rings are parts of one object."""
    return [shapely.Polygon(np.asarray(ring, dtype=float).reshape(-1, 2)) for ring in segmentation]


def segmentation_mask(segmentation: Any, height: int, width: int) -> BoolArray:
    """A COCO segmentation (polygon list, or RLE with counts as list or text) as mask, bool [H, W]."""
    if isinstance(segmentation, dict):
        rle = segmentation
        if isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, height, width)
        decoded: npt.NDArray[np.uint8] = coco_mask.decode(rle)
        return decoded.astype(bool)
    return polygons_mask(segmentation_polygons(segmentation), height, width)


def resize_nearest(masks: BoolArray, size: tuple[int, int]) -> BoolArray:
    """Masks [n, H, W] resampled to ``size`` (h, w) by nearest neighbour."""
    if masks.shape[1:] == size:
        return masks
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int) for n, m in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows][:, :, columns]


def rle_counts(counts: Any) -> list[int]:
    """The run lengths of COCO's RLE, given as list or as its compressed text (pycocotools' rleFrString).

    Raises:
        ValueError: they are not run lengths.
    """
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("run lengths must be whole numbers")
        return counts
    if not isinstance(counts, str):
        raise ValueError("run lengths must be a list or text")
    runs: list[int] = []
    value = shift = 0
    for byte in counts.encode("ascii"):
        if not 48 <= byte < 112 or shift > 60:
            raise ValueError("the text is not a compressed RLE")
        bits = byte - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (bits & 0x10) << (shift - 4)  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift or any(run < 0 for run in runs):
        raise ValueError("the text is not a compressed RLE")
    return runs


def rings_mask(rings: Sequence[FloatArray], height: int, width: int) -> BoolArray:
    """The mask [H, W] of one polygon: first ring exterior, the rest holes."""
    return polygons_mask([shapely.Polygon(rings[0], rings[1:])], height, width)


def mask_rings(mask: BoolArray, tolerance: float = 0.5) -> list[FloatArray]:
    """Outline the largest 4-connected part of a mask.

    The outline connects the midpoints of the pixels' edges, not their corners, which avoids stair steps and encloses
    the same pixel centres.

    Args:
        mask: [H, W].
        tolerance: simplify the outline by at most this many pixels (Douglas-Peucker), unless that would make it cross
            itself.

    Returns:
        Closed rings [N, 2] (x, y) in pixel corners, exterior first, then holes; empty if the mask is empty.
    """
    parts = [
        shapely.geometry.shape(geometry)
        for geometry, _ in rasterio.features.shapes(mask.astype(np.uint8), mask=mask, connectivity=4)
    ]
    if not parts:
        return []
    largest = max(parts, key=lambda part: part.area)
    outlines = [_edge_midpoints(ring) for ring in (largest.exterior, *largest.interiors)]
    # as lines, because GEOS may move a polygon's first vertex by twice the tolerance
    simple = [shapely.LineString(outline).simplify(tolerance, preserve_topology=False).coords for outline in outlines]
    if min(len(ring) for ring in simple) < 4 or not shapely.Polygon(simple[0], simple[1:]).is_valid:
        return [np.asarray(outline, dtype=np.float32) for outline in outlines]
    return [np.asarray(ring, dtype=np.float32) for ring in simple]


def _edge_midpoints(ring: shapely.LinearRing) -> npt.NDArray[np.float64]:
    corners = shapely.get_coordinates(shapely.segmentize(ring, 1.0))
    midpoints = (corners[:-1] + corners[1:]) / 2
    return np.vstack([midpoints, midpoints[:1]])


def encode_rle(mask: BoolArray) -> dict[str, Any]:
    """A mask [H, W] as compressed COCO RLE."""
    rle: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return rle
