"""Annotations and rings to masks, masks to rings. Pixel corners: a tile of W x H pixels spans [0, W] x [0, H]."""

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
    """Pixels [H, W] whose centre lies in any of the polygons."""
    shapes = [(polygon, 1) for polygon in polygons if not polygon.is_empty]
    if not shapes:
        return np.zeros((height, width), dtype=bool)
    burnt: npt.NDArray[np.uint8] = rasterio.features.rasterize(shapes, out_shape=(height, width), dtype="uint8")
    return burnt.astype(bool)


def segmentation_polygons(segmentation: Sequence[Sequence[float]]) -> list[shapely.Polygon]:
    """COCO's polygon list (x, y, x, y, ...) as shapely polygons; several are parts of one object."""
    return [shapely.Polygon(np.asarray(ring, dtype=float).reshape(-1, 2)) for ring in segmentation]


def segmentation_mask(segmentation: Any, height: int, width: int) -> BoolArray:
    """A COCO segmentation (polygon list, or RLE with counts as list or text) as mask [H, W]."""
    if isinstance(segmentation, dict):
        rle = segmentation
        if isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, height, width)
        decoded: npt.NDArray[np.uint8] = coco_mask.decode(rle)
        return decoded.astype(bool)
    return polygons_mask(segmentation_polygons(segmentation), height, width)


def rings_mask(rings: Sequence[FloatArray], height: int, width: int) -> BoolArray:
    """The mask [H, W] of one polygon: first ring exterior, the rest holes."""
    return polygons_mask([shapely.Polygon(rings[0], rings[1:])], height, width)


def mask_rings(mask: BoolArray, tolerance: float = 0.5) -> list[FloatArray]:
    """Outline the largest 4-connected part of a mask.

    Args:
        mask: [H, W].
        tolerance: the outline may be simplified by at most this many pixels (Douglas-Peucker, topology kept).

    Returns:
        Closed rings [N, 2] (x, y) in pixel corners, exterior first, then holes; empty when nothing is set.
    """
    parts = [
        shapely.geometry.shape(geometry)
        for geometry, _ in rasterio.features.shapes(mask.astype(np.uint8), mask=mask, connectivity=4)
    ]
    if not parts:
        return []
    outline = max(parts, key=lambda part: part.area)
    simplified = outline.simplify(tolerance, preserve_topology=True)
    if simplified.is_empty or not simplified.is_valid:
        simplified = outline
    return [np.asarray(ring.coords, dtype=np.float32) for ring in (simplified.exterior, *simplified.interiors)]


def encode_rle(mask: BoolArray) -> dict[str, Any]:
    """A mask [H, W] as compressed COCO RLE."""
    rle: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return rle
