"""Evaluation against known answers and against pycocotools."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ml_backend.detector import CheckpointError, ChipInput, Detection, TileResult, TrainResult, evaluate, read_dataset
from ml_backend.detector.dataset import DatasetSpec, Tile
from ml_backend.detector.evaluation import Evaluation, average_precision, evaluate_detector, to_coco
from ml_backend.detector.masks import mask_rings, segmentation_mask


def detection(mask: np.ndarray, score: float = 0.9) -> Detection:
    return Detection(mask_rings(mask, 0), "RTS", score, (score,) * 3, np.zeros((3, 4), np.float32), 0.1, 0.1)


def truths(tile: Tile) -> list[np.ndarray]:
    return [segmentation_mask(i.segmentation, tile.height, tile.width) for i in tile.instances]


class Oracle:
    """Stands in for a detector: answers tile after tile with prepared detections."""

    def __init__(self, dataset: DatasetSpec, answers: Sequence[Sequence[Detection]]) -> None:
        self.modalities = dataset.modalities
        self._answers = iter(answers)

    def predict(self, chips: Sequence[ChipInput], **_: object) -> list[TileResult]:
        return [TileResult(tuple(next(self._answers)), np.zeros(1, np.float32), 0.0) for _ in chips]


def judge(dataset: DatasetSpec, answers: Sequence[Sequence[Detection]], split: str = "train") -> Evaluation:
    return evaluate_detector(Oracle(dataset, answers), dataset, split)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dataset(dataset_dir: Path) -> DatasetSpec:
    return read_dataset(dataset_dir)


def test_perfect_answers_score_one(dataset: DatasetSpec) -> None:
    tiles = dataset.tiles("train")
    result = judge(dataset, [[detection(m) for m in truths(tile)] for tile in tiles])
    assert (result.ap, result.ap50, result.ap30, result.ar, result.f1) == pytest.approx((1, 1, 1, 1, 1))
    assert result.best_score_threshold == 0.9
    assert result.n_instances == sum(len(tile.instances) for tile in tiles)
    assert all(p["fp"] == p["fn"] == 0 for p in result.per_image.values())
    assert result.per_image["train_0000.tif"]["iou"] == pytest.approx(1)
    assert result.per_image["train_0001.tif"]["region"] == "region-1"
    json.dumps(result.to_json())


def test_silence_scores_zero_and_misses_everything(dataset: DatasetSpec) -> None:
    result = judge(dataset, [[] for _ in dataset.tiles("train")])
    assert (result.ap, result.ap50, result.f1, result.best_score_threshold) == (0, 0, 0, 0)
    assert sum(p["fn"] for p in result.per_image.values()) == result.n_instances


def test_half_overlaps_count_at_30_but_not_at_50(dataset: DatasetSpec) -> None:
    answers = []
    for tile in dataset.tiles("train"):
        halves = []
        for mask in truths(tile):
            rows = np.flatnonzero(mask.any(axis=1))
            part = mask.copy()
            part[rows[int(len(rows) * 0.45)] :] = False
            halves.append(detection(part))
        answers.append(halves)
    result = judge(dataset, answers)
    assert result.ap30 > 0.7
    assert result.ap50 < 0.2


def test_f1_picks_the_threshold_that_drops_false_alarms(dataset: DatasetSpec) -> None:
    corner = np.zeros((64, 64), dtype=bool)
    corner[:5, :5] = True
    answers = [[*(detection(m, 0.8) for m in truths(tile)), detection(corner, 0.3)] for tile in dataset.tiles("train")]
    result = judge(dataset, answers)
    assert result.f1 == pytest.approx(1)
    assert result.best_score_threshold == pytest.approx(0.8)
    assert all(p["fp"] == 0 for p in result.per_image.values())


def test_detections_on_ignored_regions_are_not_false_alarms(own_dataset_dir: Path) -> None:
    file = own_dataset_dir / "annotations/train.json"
    data = json.loads(file.read_text())
    assert len(data["annotations"]) > 1
    data["annotations"][0]["ignore"] = 1
    file.write_text(json.dumps(data))
    dataset = read_dataset(own_dataset_dir)
    result = judge(dataset, [[detection(m) for m in truths(tile)] for tile in dataset.tiles("train")])
    assert result.n_instances == len(data["annotations"]) - 1
    assert (result.ap50, result.f1) == pytest.approx((1, 1))
    assert sum(p["fp"] for p in result.per_image.values()) == 0


def test_average_precision_is_pycocotools(dataset: DatasetSpec) -> None:
    rng = np.random.default_rng(0)
    tiles = dataset.tiles("train")
    answers = []
    for tile in tiles:
        shifted = [np.roll(mask, rng.integers(-4, 5, 2), axis=(0, 1)) for mask in truths(tile) for _ in range(2)]
        answers.append([detection(mask, float(rng.random())) for mask in shifted])
    truth, predictions = to_coco(tiles, answers, dataset.classes)
    ap, ar = average_precision(truth, predictions, 100)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = json.loads(json.dumps(truth, default=lambda b: b.decode()))
        reference.createIndex()
        results = reference.loadRes(json.loads(json.dumps(predictions, default=lambda b: b.decode())))
        judge = COCOeval(reference, results, "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert 0.1 < judge.stats[0] < 0.9
    assert ap[1:].mean() == pytest.approx(judge.stats[0])
    assert (ap[1], ap[6]) == pytest.approx(tuple(judge.stats[1:3]))
    assert ar[1:].mean() == pytest.approx(judge.stats[8])
    assert ap[0] > ap[1]


def test_a_checkpoint_is_evaluated_from_its_folder(trained: TrainResult, dataset_dir: Path) -> None:
    told: list[tuple[float, str]] = []
    result = evaluate(
        dataset_dir,
        trained.checkpoint,
        split="val",
        device="cpu",
        progress=lambda share, text: told.append((share, text)),
    )
    assert result.n_tiles == 3
    assert told[-1] == (1.0, "evaluating val: tile 3/3")
    again = {key: value for key, value in result.summary().items() if key != "seconds"}
    assert again == pytest.approx({key: value for key, value in trained.metrics.items() if key != "seconds"})


def test_a_checkpoint_for_other_modalities_is_refused(trained: TrainResult, own_dataset_dir: Path) -> None:
    file = own_dataset_dir / "dataset.json"
    data = json.loads(file.read_text())
    data["modalities"].pop()
    file.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"needs the modality 'relative_elevation'.*does not declare"):
        evaluate(own_dataset_dir, trained.checkpoint, device="cpu")
