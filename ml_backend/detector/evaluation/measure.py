"""How good a detector is on a split: mask AP by faster-coco-eval on exactly the outlines that users get."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as coco_mask

from ml_backend.detector.chips import read_tile
from ml_backend.detector.dataset import DatasetSpec, Tile, read_dataset
from ml_backend.detector.errors import CheckpointError
from ml_backend.detector.inference import Detection, Detector, load
from ml_backend.detector.masks import encode_rle, rings_mask, segmentation_mask
from ml_backend.detector.validation import check_dataset

Progress = Callable[[float, str], None]
IOUS = np.array([0.3, *np.arange(0.5, 0.96, 0.05)])
MATCH_IOU = 0.5


@dataclass(frozen=True)
class Evaluation:
    """Quality on a split; all but counts and seconds are in 0..1.

    Attributes:
        ap: mask AP averaged over IoU .50 to .95; ``ap50``, ``ap75``, ``ap30`` at one IoU. 0 where nothing is annotated.
        ar: mask average recall over IoU .50 to .95.
        f1: best F1 at IoU .5 over score thresholds; ``precision`` and ``recall`` go with it.
        best_score_threshold: where that F1 is reached.
        per_image: by file name: ``tp``, ``fp``, ``fn`` at that threshold, ``iou`` (mean of the matches), ``region``,
            ``modalities`` (those present): what confidence intervals are resampled from.
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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """All but the per-image part."""
        return {key: value for key, value in asdict(self).items() if key != "per_image"}


@dataclass(frozen=True)
class _Judged:
    """The detections of one tile against its truth: what F1 needs."""

    scores: npt.NDArray[np.float64]
    matched: npt.NDArray[np.bool_]
    ious: npt.NDArray[np.float64]
    counted: npt.NDArray[np.bool_]  # False where the detection lies on an ignored region
    truths: int


def evaluate(
    dataset_dir: Path | str,
    checkpoint: Path | str,
    *,
    split: str = "test",
    device: str = "auto",
    progress: Progress | None = None,
    max_detections: int = 100,
) -> Evaluation:
    """Evaluate a checkpoint on a split of a dataset directory.

    Raises:
        DatasetError: the dataset breaks its contract.
        CheckpointError: the checkpoint is damaged, or for other modalities, bands or classes.
    """
    dataset = read_dataset(dataset_dir)
    detector = load(checkpoint, device)
    check_fits(detector, dataset, Path(checkpoint))
    own = {m.name: m for m in detector.modalities}  # with the checkpoint's normalisation
    check_dataset(dataset.with_modalities(tuple(own.get(m.name, m) for m in dataset.modalities)), list(own), [split])
    dataset = dataset.with_modalities(detector.modalities)
    return evaluate_detector(detector, dataset, split, progress=progress, max_detections=max_detections)


def check_fits(detector: Detector, dataset: DatasetSpec, source: Path) -> None:
    """Refuse a dataset that lacks the detector's modalities or has classes it does not know.

    Raises:
        CheckpointError: naming what is missing.
    """
    available = {m.name: m.bands for m in dataset.modalities}
    for modality in detector.modalities:
        if available.get(modality.name) != modality.bands:
            raise CheckpointError(
                f"{source} needs the modality '{modality.name}' with bands {', '.join(modality.bands)}, which "
                f"{dataset.path / 'dataset.json'} does not declare: use a checkpoint for the dataset's modalities."
            )
    unknown = [name for name in dataset.classes if name not in detector.classes]
    if unknown:
        raise CheckpointError(
            f"{source} does not know the class '{unknown[0]}' of {dataset.path / 'dataset.json'} (it knows "
            f"{', '.join(detector.classes)}): evaluate a checkpoint trained on these classes."
        )


def evaluate_detector(
    detector: Detector,
    dataset: DatasetSpec,
    split: str,
    *,
    progress: Progress | None = None,
    max_detections: int = 100,
    batch_size: int = 8,
) -> Evaluation:
    """Evaluate a detector in memory on a split that has been checked."""
    started = time.perf_counter()
    tiles = dataset.usable_tiles(split)
    found: list[tuple[Detection, ...]] = []
    present: list[list[str]] = []
    for start in range(0, len(tiles), batch_size):
        batch = tiles[start : start + batch_size]
        chips = [read_tile(dataset, detector.modalities, tile) for tile in batch]
        results = detector.predict(chips, max_detections=max_detections, batch_size=batch_size)
        found += [result.detections for result in results]
        present += [sorted(chip.arrays) for chip in chips]
        if progress:
            progress(len(found) / len(tiles), f"evaluating {split}: tile {len(found)}/{len(tiles)}")
    truth, predictions = to_coco(tiles, found, dataset.classes)
    ap, ar = average_precision(truth, predictions, max_detections)
    judged = [judge(tile, truth, predictions) for tile in tiles]
    f1, precision, recall, threshold = best_f1(judged)
    return Evaluation(
        ap=float(np.mean(ap[1:])),
        ap50=float(ap[1]),
        ap75=float(ap[6]),
        ap30=float(ap[0]),
        ar=float(np.mean(ar[1:])),
        f1=f1,
        precision=precision,
        recall=recall,
        best_score_threshold=threshold,
        n_tiles=len(tiles),
        n_instances=sum(j.truths for j in judged),
        seconds=time.perf_counter() - started,
        per_image={
            tile.file_name: _per_image(tile, j, threshold, names)
            for tile, j, names in zip(tiles, judged, present, strict=True)
        },
    )


def to_coco(
    tiles: Sequence[Tile], found: Sequence[Sequence[Detection]], classes: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and detections as COCO, masks as RLE rasterised by one rule (pixel centres) on both sides."""
    annotations: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []
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
                    "iscrowd": int(instance.ignored),
                }
            )
        for detection in detections:
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


def average_precision(
    truth: dict[str, Any], predictions: list[dict[str, Any]], max_detections: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mask AP and AR at each of :data:`IOUS`, averaged over the classes that occur; 0 where nothing can be found."""
    zeros = np.zeros(len(IOUS))
    if not predictions or not truth["annotations"]:
        return zeros, zeros
    reference = COCO(truth, print_function=_silent)
    evaluator = COCOeval_faster(
        reference, reference.loadRes([dict(p) for p in predictions]), iouType="segm", print_function=_silent
    )
    evaluator.params.iouThrs = IOUS
    evaluator.params.maxDets = [max_detections]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = np.asarray(evaluator.eval["precision"])[..., 0, -1]  # [IoU, recall, class]
    recall = np.asarray(evaluator.eval["recall"])[..., 0, -1]  # [IoU, class]
    occurs = recall[0] > -1
    if not occurs.any():
        return zeros, zeros
    return precision[:, :, occurs].mean(axis=(1, 2)), recall[:, occurs].mean(axis=1)


def _silent(*args: object) -> None:
    """faster-coco-eval narrates; evaluation speaks through its progress callback."""


def judge(tile: Tile, truth: dict[str, Any], predictions: list[dict[str, Any]]) -> _Judged:
    """Match one tile's detections, best first, to truths of their class at IoU .5 (COCO's greedy rule)."""
    truths = [a for a in truth["annotations"] if a["image_id"] == tile.id]
    found = sorted((p for p in predictions if p["image_id"] == tile.id), key=lambda p: -p["score"])
    matched, counted = np.zeros(len(found), bool), np.ones(len(found), bool)
    ious = np.zeros(len(found))
    table = np.zeros((len(found), len(truths)))
    if found and truths:
        table = np.asarray(
            coco_mask.iou(
                [p["segmentation"] for p in found],
                [a["segmentation"] for a in truths],
                [a["iscrowd"] for a in truths],
            )
        )
    free = np.array([not a["iscrowd"] for a in truths], dtype=bool)
    crowd = ~free
    classes = np.array([a["category_id"] for a in truths])
    for row, prediction in enumerate(found):
        same = table[row] * (classes == prediction["category_id"])
        best = int(np.argmax(np.where(free, same, -1))) if free.any() else -1
        if best >= 0 and same[best] >= MATCH_IOU:
            matched[row], ious[row], free[best] = True, same[best], False
        else:
            counted[row] = not (crowd & (same >= MATCH_IOU)).any()
    scores = np.array([p["score"] for p in found], dtype=np.float64)
    return _Judged(scores, matched, ious, counted, int((~crowd).sum()))


def best_f1(judged: Sequence[_Judged]) -> tuple[float, float, float, float]:
    """The best F1 over score thresholds, with its precision, recall and threshold; zeros when nothing was found."""
    scores = np.concatenate([j.scores[j.counted] for j in judged])
    hits = np.concatenate([j.matched[j.counted] for j in judged])
    truths = sum(j.truths for j in judged)
    if not len(scores) or not truths or not hits.any():
        return 0.0, 0.0, 0.0, 0.0
    order = np.argsort(-scores, kind="stable")
    true_positives = np.cumsum(hits[order])
    kept = np.arange(1, len(order) + 1)
    f1 = 2 * true_positives / (kept + truths)
    best = int(np.argmax(f1))
    return (
        float(f1[best]),
        float(true_positives[best] / kept[best]),
        float(true_positives[best] / truths),
        float(scores[order[best]]),
    )


def _per_image(tile: Tile, judged: _Judged, threshold: float, modalities: list[str]) -> dict[str, Any]:
    kept = judged.counted & (judged.scores >= threshold)
    hits = kept & judged.matched
    return {
        "tp": int(hits.sum()),
        "fp": int((kept & ~judged.matched).sum()),
        "fn": judged.truths - int(hits.sum()),
        "iou": float(judged.ious[hits].mean()) if hits.any() else 0.0,
        "region": tile.region,
        "modalities": modalities,
    }
