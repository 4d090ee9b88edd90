"""Evaluation against known answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ml_backend.detector import (
    CheckpointError,
    ConfigError,
    DatasetError,
    Detection,
    TrainResult,
    evaluate,
    load,
    read_dataset,
)
from ml_backend.detector.calibration import Calibration
from ml_backend.detector.chips import read_tile
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.evaluation import METRICS, Evaluation, Search
from ml_backend.detector.evaluation.operating import MARGIN
from ml_backend.detector.evaluation.result import DETAILS
from tests.detector.evaluation.answers import detection, guesses, judge, truths


def test_perfect_answers_score_one(dataset: DatasetSpec) -> None:
    tiles = dataset.tiles("train")
    result = judge(dataset, [[detection(m) for m in truths(tile)] for tile in tiles])
    assert (result.ap, result.ap50, result.ap30, result.ar, result.f1) == pytest.approx((1, 1, 1, 1, 1))
    assert result.best_score_threshold == pytest.approx(0.9 - MARGIN)
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
    assert result.best_score_threshold == pytest.approx(0.8 - MARGIN)
    assert all(p["fp"] == 0 for p in result.per_image.values())


def test_a_threshold_is_no_instances_very_score(dataset: DatasetSpec) -> None:
    """Scores that another device rounds otherwise fall on the same side of it."""
    corner = np.zeros((64, 64), dtype=bool)
    corner[:5, :5] = True
    answers = [
        [*(detection(m, 0.3) for m in truths(tile)), detection(corner, 0.298)] for tile in dataset.tiles("train")
    ]
    assert judge(dataset, answers).best_score_threshold == pytest.approx(0.299)


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


def test_an_instance_that_covers_no_pixel_is_nothing_to_find(own_dataset_dir: Path) -> None:
    file = own_dataset_dir / "annotations/train.json"
    data = json.loads(file.read_text())
    perfect = [[detection(m) for m in truths(tile)] for tile in read_dataset(own_dataset_dir).tiles("train")]
    sliver = [[30.1, 30.1, 40.1, 30.1, 40.1, 30.2]]
    data["annotations"].append({**data["annotations"][0], "id": 999, "segmentation": sliver})
    file.write_text(json.dumps(data))
    result = judge(read_dataset(own_dataset_dir), perfect)
    assert result.n_instances == len(data["annotations"]) - 1
    assert (result.ap50, result.ar, result.recall) == pytest.approx((1, 1, 1))


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
    chosen = ("seconds", "best_max_overlap")  # the latter only where it is chosen: after a training
    before = {key: value for key, value in trained.metrics.items() if key not in chosen and value is not None}
    assert {key: result.summary()[key] for key in before} == pytest.approx(before)


@pytest.mark.parametrize("search", [Search(tta="flips"), Search(window=48, overlap=16)])
def test_tiles_are_judged_as_they_would_be_predicted(trained: TrainResult, dataset_dir: Path, search: Search) -> None:
    judged = evaluate(dataset_dir, trained.checkpoint, split="val", device="cpu", search=search, resamples=0)
    detector = load(trained.checkpoint, "cpu")
    dataset = read_dataset(dataset_dir)
    chips = [read_tile(dataset, detector.modalities, tile) for tile in dataset.usable_tiles("val")]
    as_told, plainly = detector.predict(chips, **vars(search)), detector.predict(chips)
    scores = [[found[1] for found in tile["detections"]] for tile in judged.per_image.values()]
    assert scores == [[d.score for d in result.detections] for result in as_told]
    assert scores != [[d.score for d in result.detections] for result in plainly]
    assert judged.to_json()["search"] == vars(search)
    told = {Search(tta="flips"): "tta flips", Search(window=48, overlap=16): "window 48, overlap 16"}
    assert Evaluation.from_json(judged.to_json()).given_search == told[search]


@pytest.mark.parametrize(
    ("search", "message"), [(Search(tta="d5"), "d5"), (Search(window=8), "window"), (Search(overlap=-1), "overlap")]
)
def test_a_search_that_makes_no_sense_is_refused(
    trained: TrainResult, dataset_dir: Path, search: Search, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(dataset_dir, trained.checkpoint, split="val", device="cpu", search=search)


def test_a_checkpoint_for_other_modalities_is_refused(trained: TrainResult, own_dataset_dir: Path) -> None:
    file = own_dataset_dir / "dataset.json"
    data = json.loads(file.read_text())
    data["modalities"].pop()
    file.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"needs the modality 'relative_elevation'.*does not declare"):
        evaluate(own_dataset_dir, trained.checkpoint, device="cpu")


def test_a_split_that_shares_tiles_with_an_earlier_one_is_refused(trained: TrainResult, own_dataset_dir: Path) -> None:
    shutil.copy(own_dataset_dir / "annotations/train.json", own_dataset_dir / "annotations/test.json")
    with pytest.raises(DatasetError, match=r"test\.json: tile 'train_0000\.tif' is in .*annotations/train\.json, too"):
        evaluate(own_dataset_dir, trained.checkpoint, device="cpu")
    assert evaluate(own_dataset_dir, trained.checkpoint, split="train", device="cpu", resamples=0).n_tiles == 3
    (own_dataset_dir / "annotations/train.json").unlink()
    shutil.copy(own_dataset_dir / "annotations/test.json", own_dataset_dir / "annotations/val.json")
    with pytest.raises(DatasetError, match=r"test\.json: tile .* is in .*annotations/val\.json, too"):
        evaluate(own_dataset_dir, trained.checkpoint, device="cpu")  # its threshold was chosen there
    assert evaluate(own_dataset_dir, trained.checkpoint, split="val", device="cpu", resamples=0).n_tiles == 3
    (own_dataset_dir / "annotations/val.json").unlink()
    assert evaluate(own_dataset_dir, trained.checkpoint, device="cpu", resamples=0).n_tiles == 3


def test_every_single_figure_has_a_name(dataset: DatasetSpec) -> None:
    result = judge(dataset, guesses(dataset, 0), resamples=10)
    assert set(METRICS) == set(result.summary()) - {"n_tiles", "n_instances", "seconds"}
    assert set(result.intervals) <= set(METRICS)
    assert set(result.to_json()) - set(result.summary()) == set(DETAILS)


def test_boxes_are_judged_apart_from_outlines(dataset: DatasetSpec) -> None:
    answers = []
    for tile in dataset.tiles("train"):
        filled = []
        for mask in truths(tile):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box = np.zeros_like(mask)
            box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            filled.append(detection(box))
        answers.append(filled)
    result = judge(dataset, answers)
    assert (result.box_ap, result.box_ap50, result.box_ar) == pytest.approx((1, 1, 1))
    assert result.ap < 0.9


def test_pixels_and_bands_are_compared_as_one_map(dataset: DatasetSpec) -> None:
    tiles = dataset.tiles("train")
    perfect = judge(dataset, [[detection(m) for m in truths(tile)] for tile in tiles])
    assert (perfect.pixel_iou, perfect.boundary_iou, perfect.boundary_ap) == pytest.approx((1, 1, 1))
    shifted = judge(dataset, [[detection(np.roll(m, 2, axis=1)) for m in truths(tile)] for tile in tiles])
    inter = union = 0
    for tile in tiles:
        real = np.any(truths(tile), axis=0) if tile.instances else np.zeros((64, 64), bool)
        found = np.roll(real, 2, axis=1)
        inter, union = inter + (real & found).sum(), union + (real | found).sum()
    assert shifted.pixel_iou == pytest.approx(inter / union, abs=0.01)
    assert shifted.boundary_iou < shifted.pixel_iou


def test_a_stored_threshold_is_reported_beside_the_best_one(dataset: DatasetSpec) -> None:
    corner = np.zeros((64, 64), dtype=bool)
    corner[:5, :5] = True
    answers = [[*(detection(m, 0.8) for m in truths(tile)), detection(corner, 0.3)] for tile in dataset.tiles("train")]
    result = judge(dataset, answers, calibration=Calibration(score_threshold=0.2))
    assert (result.score_threshold, result.best_score_threshold) == (0.2, pytest.approx(0.8 - MARGIN))
    assert (result.recall_at_threshold, result.f1) == pytest.approx((1, 1))
    right, wrong = result.n_instances, len(answers)
    assert result.precision_at_threshold == pytest.approx(right / (right + wrong))
    assert result.f1_at_threshold == pytest.approx(2 * right / (2 * right + wrong))
    without = judge(dataset, answers)
    assert (without.score_threshold, without.f1_at_threshold) == (None, None)


def test_nothing_annotated_or_nothing_found_is_said_without_nan(own_dataset_dir: Path) -> None:
    dataset = read_dataset(own_dataset_dir)
    answers = [[detection(m) for m in truths(tile)] for tile in dataset.tiles("train")]
    silent = judge(dataset, [[] for _ in answers], resamples=20)
    file = own_dataset_dir / "annotations/train.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    bare = read_dataset(own_dataset_dir)
    empty, both = judge(bare, answers, resamples=20), judge(bare, [[] for _ in answers], resamples=20)
    for result in (silent, empty, both):
        json.dumps(result.to_json(), allow_nan=False)
        assert (result.ap, result.ap50, result.box_ap, result.f1, result.best_score_threshold) == (0, 0, 0, 0, 0)
    assert (silent.pixel_iou, silent.boundary_iou, silent.ece, silent.best_temperature) == (0, 0, None, None)
    assert (empty.pixel_iou, empty.rts_ap, empty.ece) == (None, None, pytest.approx(0.9))
    assert empty.intervals["ap"] is None
    assert silent.intervals["ap"] == (0, 0)


def test_a_split_without_tiles_is_said_without_nan(own_dataset_dir: Path) -> None:
    file = own_dataset_dir / "annotations/train.json"
    file.write_text(json.dumps({"images": [], "annotations": []}))
    result = judge(read_dataset(own_dataset_dir), [], resamples=20)
    json.dumps(result.to_json(), allow_nan=False)
    assert (result.n_tiles, result.ap, result.f1, result.pixel_iou, result.per_image) == (0, 0, 0, None, {})


def test_classes_that_the_dataset_does_not_declare_are_left_out(dataset: DatasetSpec) -> None:
    tiles = dataset.tiles("train")
    answers = [[detection(m, 0.5) for m in truths(t)] + [detection(m, 0.9, "lake") for m in truths(t)] for t in tiles]
    assert judge(dataset, answers).ap50 == pytest.approx(1)


def test_break_downs_add_up(crowded: DatasetSpec, crowded_answers: list[list[Detection]]) -> None:
    result = judge(crowded, crowded_answers)
    total = {key: sum(tile[key] for tile in result.per_image.values()) for key in ("tp", "fp", "fn")}
    for kind in ("region", "class", "modalities"):
        rows = result.breakdowns[kind]
        assert {key: sum(row[key] for row in rows) for key in total} == total, kind
        assert sum(row["instances"] for row in rows) == result.n_instances
    for kind in ("region", "modalities"):
        assert sum(row["tiles"] for row in result.breakdowns[kind]) == result.n_tiles
    assert [row["name"] for row in result.breakdowns["modalities"]] == ["rgb", "rgb+relative_elevation"]
    assert [row["name"] for row in result.breakdowns["class"]] == ["RTS", "lake", "gully"]
    assert result.breakdowns["class"][2]["instances"] == 0
    assert result.to_json()["breakdowns"]["class"][2]["ap50"] is None
    assert sum(row["instances"] for row in result.breakdowns["size"]) == result.n_instances


def test_the_threshold_and_temperature_of_validation_are_used_on_test(
    trained: TrainResult, dataset_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained.checkpoint, tmp_path / "checkpoint")
    card = json.loads((folder / "model.json").read_text())
    assert {"best_temperature", "best_score_threshold"} <= set(card["metrics"])
    card["metrics"] |= {"best_temperature": 2.0, "best_score_threshold": 0.3}
    (folder / "model.json").write_text(json.dumps(card))
    result = evaluate(dataset_dir, folder, device="cpu", resamples=0)
    assert (result.score_threshold, result.temperature) == (0.3, 2.0)
    assert result.ece_calibrated is not None
    detector, dataset = load(folder, "cpu"), read_dataset(dataset_dir)
    (told,) = detector.predict([read_tile(dataset, detector.modalities, dataset.tiles("train")[0])])
    best = told.detections[0]
    odds = np.sqrt(best.score / (1 - best.score))
    assert best.probability == pytest.approx(odds / (1 + odds), abs=1e-5)
    assert best.to_json()["probability"] == best.probability
