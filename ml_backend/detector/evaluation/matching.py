"""Matching detections to instances by pycocotools' greedy rule, with the result for each detection.

For metrics that depend on single detections: F1, calibration, break-downs, the bootstrap.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO
from pycocotools.cocoeval import COCOeval

from ml_backend.detector.evaluation.coco import ANY_SIZE, IOUS, MATCH_IOU, Annotations, Floats, silent

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """D detections on N tiles against instances of K classes, at T IoUs; in COCO's order (tile, then score).

    Attributes:
        ious: [T].
        tile: [D], index of the tile.
        label: [D], index of the class.
        score: [D].
        hit: bool [T, D], it is matched to an instance.
        ignored: bool [T, D], it lies on an ignored region or is of another size: neither correct nor wrong.
        truths: int64 [N, K], number of instances.
    """

    ious: Floats
    tile: Ints
    label: Ints
    score: Floats
    hit: Bools
    ignored: Bools
    truths: Ints

    def at(self, iou: float) -> int:
        """Index of an IoU.

        Raises:
            ValueError: it was not matched at that IoU.
        """
        found = np.flatnonzero(np.isclose(self.ious, iou))
        if not len(found):
            raise ValueError(f"These detections were not matched at IoU {iou}.")
        return int(found[0])

    def only(self, tiles: Bools) -> Matches:
        """Restrict to some of the tiles, bool [N]; the others stay, without detections and instances."""
        kept = tiles[self.tile]
        return self._select(kept, np.where(tiles[:, None], self.truths, 0))

    def of_class(self, label: int) -> Matches:
        """Restrict to one class; the others stay, without detections and instances."""
        truths = np.zeros_like(self.truths)
        truths[:, label] = self.truths[:, label]
        return self._select(self.label == label, truths)

    def _select(self, kept: Bools, truths: Ints) -> Matches:
        return replace(
            self,
            tile=self.tile[kept],
            label=self.label[kept],
            score=self.score[kept],
            hit=self.hit[:, kept],
            ignored=self.ignored[:, kept],
            truths=truths,
        )


@dataclass(frozen=True)
class Pairs:
    """The matched pairs at IoU .5, in the order of :class:`Matches`.

    Attributes:
        prediction: [D], index into the COCO results.
        partner: [D], ``id`` of the matched annotation, 0 for none.
        iou: [D], with that annotation; 0 for none.
    """

    prediction: Ints
    partner: Ints
    iou: Floats


def match(
    truth: dict[str, Any],
    predictions: Annotations,
    max_detections: int,
    *,
    ious: Floats = IOUS,
    size: tuple[float, float] = ANY_SIZE,
) -> tuple[Matches, Pairs]:
    """Match detections, best first, to instances of their class (COCO's rule, with its ignored regions).

    Args:
        truth: COCO dataset, of which instances of other sizes are ignored.
        predictions: COCO results with ``segmentation``.
        max_detections: per tile and class.
        ious: thresholds to match at, including .5.
        size: smallest and largest area in pixels.
    """
    order = {image["id"]: index for index, image in enumerate(truth["images"])}
    truths = np.zeros((len(order), len(truth["categories"])), dtype=np.int64)
    for annotation in truth["annotations"]:
        if not annotation["iscrowd"] and size[0] <= annotation["area"] <= size[1]:
            truths[order[annotation["image_id"]], annotation["category_id"] - 1] += 1
    parts = _match_groups(truth, predictions, max_detections, ious, size) if predictions and order else []
    none = np.zeros(0)
    prediction, tile, label, score, partner, overlap = (
        np.concatenate([none, *(part[key] for part in parts)])
        for key in ("prediction", "tile", "label", "score", "partner", "iou")
    )
    hit, ignored = (
        np.concatenate([np.zeros((len(ious), 0), bool), *(part[key] for part in parts)], axis=1)
        for key in ("hit", "ignored")
    )
    tiles = np.array([order[int(image)] for image in tile], dtype=np.int64)
    return (
        Matches(ious, tiles, label.astype(np.int64), score, hit, ignored, truths),
        Pairs(prediction.astype(np.int64), partner.astype(np.int64), overlap),
    )


def _match_groups(
    truth: dict[str, Any], predictions: Annotations, max_detections: int, ious: Floats, size: tuple[float, float]
) -> list[dict[str, Any]]:
    """The columns of :class:`Matches` and :class:`Pairs` for each tile and class that has detections."""
    reference = COCO(truth, print_function=silent)
    found = reference.loadRes([dict(p) for p in predictions])
    evaluator = COCOeval(reference, found, "segm")
    evaluator.params.iouThrs = ious
    evaluator.params.maxDets = [max_detections]
    evaluator.params.areaRng = [list(size)]
    evaluator.params.areaRngLbl = ["size"]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        evaluator.evaluate()
    results = [result for result in evaluator.evalImgs if result is not None and result["dtIds"]]
    return [
        _columns(result, evaluator.ious[result["image_id"], result["category_id"]], reference, ious)
        for result in sorted(results, key=lambda result: (result["image_id"], result["category_id"]))
    ]


def _columns(result: dict[str, Any], overlaps: Any, reference: COCO, ious: Floats) -> dict[str, Any]:
    count = len(result["dtIds"])
    partner = result["dtMatches"][np.flatnonzero(np.isclose(ious, MATCH_IOU))[0]].astype(np.int64)
    ignored = result["dtIgnore"].astype(bool)
    # overlaps are [detection, instance] in the order of the annotation file
    column = {a: i for i, a in enumerate(reference.getAnnIds([result["image_id"]], [result["category_id"]]))}
    return {
        "prediction": np.array(result["dtIds"]) - 1,
        "tile": np.full(count, result["image_id"]),
        "label": np.full(count, result["category_id"] - 1),
        "score": np.array(result["dtScores"], dtype=np.float64),
        "partner": partner,
        "iou": np.array([overlaps[row][column[a]] if a else 0.0 for row, a in enumerate(partner.tolist())]),
        "hit": (result["dtMatches"] > 0) & ~ignored,
        "ignored": ignored,
    }
