"""Semantic metrics: pixel IoU, and boundary IoU of the bands along the outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core.mask import rleToBoundary
from pycocotools import mask as coco_mask

from ml_backend.detector.evaluation.coco import Annotations, mean_of_classes
from ml_backend.detector.masks import BoolArray, encode_rle

BAND = 0.02  # of the tile's diagonal: Cheng et al. 2021, "Boundary IoU", for COCO's image sizes


def map_overlaps(truth: dict[str, Any], predictions: Annotations, threshold: float) -> tuple[float, float]:
    """Pixel IoU and boundary IoU of the union of kept detections and the union of instances.

    Intersections and unions are summed over tiles, then divided, then averaged over the classes that occur. Pixels of
    ignored regions are left out.

    Args:
        truth: COCO dataset.
        predictions: COCO results with ``segmentation``.
        threshold: results of lower score are left out.

    Returns:
        Both in 0..1; NaN without instances.
    """
    classes = len(truth["categories"])
    wanted, ignored, kept = (_by_tile_and_class(entries) for entries in _sorted_out(truth, predictions, threshold))
    sums = np.zeros((2, 2, classes))  # [pixel | boundary, intersection | union, class]
    occurs = np.zeros(classes, dtype=bool)
    for image in truth["images"]:
        for label in range(classes):
            key, shape = (image["id"], label + 1), (image["height"], image["width"])
            real, found = _union(wanted.get(key, ()), shape), _union(kept.get(key, ()), shape)
            if not real.any() and not found.any():
                continue
            counted = ~_union(ignored.get(key, ()), shape)
            occurs[label] |= bool((real & counted).any())
            for row, (a, b) in enumerate(((real, found), (_band(real), _band(found)))):
                sums[row, :, label] += (a & b & counted).sum(), ((a | b) & counted).sum()
    pixel, boundary = np.where(occurs, sums[:, 0] / np.maximum(sums[:, 1], 1), np.nan)
    return float(mean_of_classes(pixel)), float(mean_of_classes(boundary))


def _sorted_out(
    truth: dict[str, Any], predictions: Annotations, threshold: float
) -> tuple[Annotations, Annotations, Annotations]:
    return (
        [a for a in truth["annotations"] if not a["iscrowd"]],
        [a for a in truth["annotations"] if a["iscrowd"]],
        [p for p in predictions if p["score"] >= threshold],
    )


def _by_tile_and_class(entries: Annotations) -> dict[tuple[int, int], list[Any]]:
    grouped: dict[tuple[int, int], list[Any]] = {}
    for entry in entries:
        grouped.setdefault((entry["image_id"], entry["category_id"]), []).append(entry["segmentation"])
    return grouped


def _union(segmentations: Sequence[Any], shape: tuple[int, int]) -> BoolArray:
    if not segmentations:
        return np.zeros(shape, dtype=bool)
    decoded: BoolArray = coco_mask.decode(coco_mask.merge(list(segmentations))).astype(bool)
    return decoded


def _band(mask: BoolArray) -> BoolArray:
    """The part of a mask that is near its outline; the tile's edge is part of the outline."""
    if not mask.any():
        return mask
    decoded: BoolArray = coco_mask.decode(rleToBoundary(encode_rle(mask), BAND)).astype(bool)
    return decoded
