"""Prepared answers in place of a detector, and COCO settled by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ml_backend.detector import ChipInput, Detection, Evaluation, TileResult
from ml_backend.detector.dataset import DatasetSpec, Tile
from ml_backend.detector.evaluation import evaluate_detector
from ml_backend.detector.masks import mask_rings, segmentation_mask

Answers = Sequence[Sequence[Detection]]
Arrays = list[np.ndarray]


def detection(mask: np.ndarray, score: float = 0.9, class_name: str = "RTS") -> Detection:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    return Detection(mask_rings(mask, 0), class_name, score, (score,) * 3, np.tile(box, (3, 1)), 0.1, 0.1)


def truths(tile: Tile) -> Arrays:
    return [segmentation_mask(i.segmentation, tile.height, tile.width) for i in tile.instances]


class Oracle:
    """Stands in for a detector: answers tile after tile with prepared detections."""

    def __init__(self, dataset: DatasetSpec, answers: Answers) -> None:
        self.modalities = dataset.modalities
        self._answers = iter(answers)

    def predict(self, chips: Sequence[ChipInput], **_: object) -> list[TileResult]:
        return [TileResult(tuple(next(self._answers)), np.zeros(1, np.float32), 0.0) for _ in chips]


def judge(dataset: DatasetSpec, answers: Answers, split: str = "train", **options: Any) -> Evaluation:
    return evaluate_detector(Oracle(dataset, answers), dataset, split, **options)  # type: ignore[arg-type]


def guesses(dataset: DatasetSpec, seed: int, split: str = "train") -> list[list[Detection]]:
    """Two shifted copies of every instance, and some noise: good, bad and doubled answers with scores to match."""
    rng = np.random.default_rng(seed)
    answers = []
    for tile in dataset.tiles(split):
        found = []
        for mask in truths(tile):
            for _ in range(2):
                shift = rng.integers(-2, 3, 2)
                found.append(detection(np.roll(mask, shift, axis=(0, 1)), float(rng.random())))
        row, column = rng.integers(0, tile.height - 8, 2)
        noise = np.zeros((tile.height, tile.width), dtype=bool)
        noise[row : row + 8, column : column + 8] = True
        answers.append(sorted([*found, detection(noise, float(rng.random()) * 0.7)], key=lambda d: -d.score))
    return answers


def pycocotools(
    truth: dict[str, Any],
    predictions: list[dict[str, Any]],
    *,
    kind: str = "segm",
    max_detections: int = 100,
    sizes: Sequence[Sequence[float]] = ((0, 1e10),),
    ious: np.ndarray | None = None,
) -> np.ndarray:
    """AP [IoU, size], mean over the classes that occur, as pycocotools has it."""
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = plain(truth)
        reference.createIndex()
        evaluator = COCOeval(reference, reference.loadRes(plain(predictions)), kind)
        evaluator.params.maxDets = [max_detections]
        evaluator.params.areaRng = [list(size) for size in sizes]
        evaluator.params.areaRngLbl = [str(size) for size in sizes]
        if ious is not None:
            evaluator.params.iouThrs = ious
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][..., -1]  # [IoU, recall, class, size]
    masked = np.ma.masked_equal(precision, -1)
    return np.asarray(masked.mean(axis=(1, 2)).filled(np.nan))


def plain(data: Any) -> Any:
    return json.loads(json.dumps(data, default=lambda value: value.decode()))
