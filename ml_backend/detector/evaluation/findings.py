"""The detections of a detector on every tile of a split, with the ground truth: the input of metrics and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ml_backend.detector.chips import read_tile
from ml_backend.detector.dataset import DatasetSpec, Tile
from ml_backend.detector.evaluation.coco import Annotations, to_coco
from ml_backend.detector.inference import Detection, Detector
from ml_backend.detector.progress import Progress


@dataclass(frozen=True)
class Search:
    """Settings of prediction; see :meth:`ml_backend.detector.Detector.predict`."""

    window: int | None = None
    overlap: int | None = None
    tta: str = "none"
    max_overlap: float | None = None


AS_TRAINED = Search()


@dataclass(frozen=True)
class Findings:
    """Detections and ground truth of the tiles of a split, in the order of the annotation file.

    Attributes:
        dataset: with the detector's modalities.
        split: its name.
        tiles: those with a chip.
        detections: of each tile, best first; only of the dataset's classes.
        modalities: available on each tile.
        max_detections: limit per tile.
        truth: COCO dataset.
        predictions: COCO results with masks; all tiles' detections, in order.
        search: settings of the prediction.
    """

    dataset: DatasetSpec
    split: str
    tiles: tuple[Tile, ...]
    detections: tuple[tuple[Detection, ...], ...]
    modalities: tuple[tuple[str, ...], ...]
    max_detections: int
    truth: dict[str, Any]
    predictions: Annotations
    search: Search = AS_TRAINED


def predict_split(
    detector: Detector,
    dataset: DatasetSpec,
    split: str,
    *,
    progress: Progress | None = None,
    max_detections: int = 100,
    batch_size: int = 8,
    search: Search = AS_TRAINED,
) -> Findings:
    """Predict all tiles of a split that has been checked."""
    tiles = dataset.usable_tiles(split)
    found: list[tuple[Detection, ...]] = []
    present: list[tuple[str, ...]] = []
    for start in range(0, len(tiles), batch_size):
        chips = [read_tile(dataset, detector.modalities, tile) for tile in tiles[start : start + batch_size]]
        results = detector.predict(chips, max_detections=max_detections, batch_size=batch_size, **vars(search))
        found += [tuple(d for d in result.detections if d.class_name in dataset.classes) for result in results]
        present += [tuple(sorted(chip.arrays)) for chip in chips]
        if progress:
            progress(len(found) / len(tiles), f"evaluating {split}: tile {len(found)}/{len(tiles)}")
    truth, predictions = to_coco(tiles, found, dataset.classes)
    return Findings(dataset, split, tiles, tuple(found), tuple(present), max_detections, truth, predictions, search)
