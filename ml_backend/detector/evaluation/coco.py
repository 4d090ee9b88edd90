"""Ground truth and detections as COCO, and COCO's AP by faster-coco-eval, on exactly the outlines that users get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as coco_mask

from ml_backend.detector.dataset import Tile
from ml_backend.detector.inference import Detection
from ml_backend.detector.masks import encode_rle, rings_mask, segmentation_mask

Floats = npt.NDArray[np.float64]
Annotations = list[dict[str, Any]]

IOUS = np.array([0.3, *np.arange(0.5, 0.96, 0.05)])
MATCH_IOU = 0.5
ANY_SIZE = (0.0, 1e10)
# The GeoAI RTS challenge: bins of 300 and 2,000 px, at most 10 detections per tile, nothing under 10 px.
SIZES = {"small": (0.0, 299.0), "medium": (300.0, 2000.0), "large": (2001.0, 1e10)}
CHALLENGE_DETECTIONS = 10
CHALLENGE_PIXELS = 10


@dataclass(frozen=True)
class Scores:
    """Average precision and recall, NaN where a class has no instance of that size.

    Attributes:
        ap: [size, IoU, class].
        ar: [size, IoU, class].
    """

    ap: Floats
    ar: Floats


def to_coco(
    tiles: Sequence[Tile], found: Sequence[Sequence[Detection]], classes: Sequence[str]
) -> tuple[dict[str, Any], Annotations]:
    """Ground truth and detections as COCO, with RLE masks, both rasterised by the same rule (pixel centres).

    Detections of a class that the dataset does not declare are left out. An instance so thin that it covers no pixel
    centre is ignored, as in training, since no mask can match it.
    """
    annotations: Annotations = []
    predictions: Annotations = []
    for tile, detections in zip(tiles, found, strict=True):
        for instance in tile.instances:
            mask = segmentation_mask(instance.segmentation, tile.height, tile.width)
            rle = encode_rle(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": tile.id,
                    "category_id": instance.class_index + 1,
                    "segmentation": rle,
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "area": float(mask.sum()),
                    "iscrowd": int(instance.ignored or not mask.any()),
                }
            )
        for detection in detections:
            if detection.class_name in classes:
                mask = rings_mask(detection.rings, tile.height, tile.width)
                predictions.append(
                    {
                        "image_id": tile.id,
                        "category_id": classes.index(detection.class_name) + 1,
                        "segmentation": encode_rle(mask),
                        "score": detection.score,
                    }
                )
    truth = {
        "images": [{"id": tile.id, "width": tile.width, "height": tile.height} for tile in tiles],
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(classes)],
    }
    return truth, predictions


def box_predictions(tiles: Sequence[Tile], found: Sequence[Sequence[Detection]], classes: Sequence[str]) -> Annotations:
    """The boxes of the cascade's last stage as COCO results, as in mmdet."""
    predictions = []
    for tile, detections in zip(tiles, found, strict=True):
        for detection in detections:
            if detection.class_name in classes:
                x1, y1, x2, y2 = (float(value) for value in detection.stage_boxes[-1])
                predictions.append(
                    {
                        "image_id": tile.id,
                        "category_id": classes.index(detection.class_name) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "score": detection.score,
                    }
                )
    return predictions


def coco_scores(
    truth: dict[str, Any],
    predictions: Annotations,
    max_detections: int,
    *,
    kind: str = "segm",
    sizes: Sequence[tuple[float, float]] = (ANY_SIZE,),
) -> Scores:
    """Average precision and recall by COCO's rules, at :data:`IOUS`.

    Args:
        truth: COCO dataset.
        predictions: COCO results with ``segmentation``, or with ``bbox`` where ``kind`` is ``bbox``.
        max_detections: per tile and class.
        kind: ``segm``, ``bbox`` or ``boundary`` (Cheng et al. 2021; the band is 2 % of the tile's diagonal).
        sizes: smallest and largest area in pixels; instances of other sizes are ignored.
    """
    counted = np.zeros((len(sizes), 1, len(truth["categories"])))
    for annotation in truth["annotations"]:
        if not annotation["iscrowd"]:
            inside = [low <= annotation["area"] <= high for low, high in sizes]
            counted[:, 0, annotation["category_id"] - 1] += inside
    if not predictions or not counted.any():
        nothing = np.where(counted > 0, 0.0, np.nan).repeat(len(IOUS), axis=1)
        return Scores(nothing, nothing)
    reference = COCO(truth, print_function=silent)
    evaluator = COCOeval_faster(
        reference, reference.loadRes([dict(p) for p in predictions]), iouType=kind, print_function=silent
    )
    evaluator.params.iouThrs = IOUS
    evaluator.params.maxDets = [max_detections]
    evaluator.params.areaRng = [list(size) for size in sizes]
    evaluator.params.areaRngLbl = [str(size) for size in sizes]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = np.asarray(evaluator.eval["precision"])[..., -1].mean(axis=1)  # [IoU, class, size], -1 where absent
    recall = np.asarray(evaluator.eval["recall"])[..., -1]
    return Scores(*(np.where(counted > 0, value.transpose(2, 0, 1), np.nan) for value in (precision, recall)))


def average_precision(
    truth: dict[str, Any], predictions: Annotations, max_detections: int, *, kind: str = "segm"
) -> tuple[Floats, Floats]:
    """AP and AR at each of :data:`IOUS`, averaged over the classes that occur; 0 without instances."""
    scores = coco_scores(truth, predictions, max_detections, kind=kind)
    return np.nan_to_num(mean_of_classes(scores.ap[0])), np.nan_to_num(mean_of_classes(scores.ar[0]))


def mean_of_classes(values: Floats) -> Floats:
    """Mean over the last axis, leaving out NaN; NaN where all are."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=-1)
    mean: Floats = np.where(known.any(axis=-1), total / np.maximum(known.sum(axis=-1), 1), np.nan)
    return mean


def challenge(truth: dict[str, Any], predictions: Annotations) -> dict[str, float]:
    """The GeoAI RTS challenge's mask AP over IoU .50 to .95: of all sizes (``all``) and per bin of :data:`SIZES`."""
    large = {**truth, "annotations": [a for a in truth["annotations"] if a["area"] >= CHALLENGE_PIXELS]}
    kept = [p for p in predictions if coco_mask.area(p["segmentation"]) >= CHALLENGE_PIXELS]
    scores = coco_scores(large, kept, CHALLENGE_DETECTIONS, sizes=[ANY_SIZE, *SIZES.values()])
    means = mean_of_classes(scores.ap[:, 1:].mean(axis=1))
    return {name: float(mean) for name, mean in zip(["all", *SIZES], means, strict=True)}


def silent(*args: object) -> None:
    """Replaces the print function of faster-coco-eval."""
