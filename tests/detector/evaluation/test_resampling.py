"""Intervals: exact draws, honest widths, paired comparisons."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ml_backend.detector import DatasetError, Detection, Evaluation
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.evaluation import average_precision, compare_evaluations, to_coco
from ml_backend.detector.evaluation.coco import IOUS
from ml_backend.detector.evaluation.matching import match
from ml_backend.detector.evaluation.resampling import draw_tiles, weighted_ap
from ml_backend.detector.evaluation.result import stored_matches
from tests.detector.evaluation.answers import Answers, detection, guesses, judge, pycocotools, truths


def test_drawing_every_tile_once_is_cocos_ap(crowded: DatasetSpec, crowded_answers: list[list[Detection]]) -> None:
    truth, predictions = to_coco(crowded.tiles("train"), crowded_answers, crowded.classes)
    for limit in (1, 2, 100):
        matches, _ = match(truth, predictions, limit)
        (own,) = weighted_ap(matches, np.ones((1, len(truth["images"])), dtype=np.int64))
        assert own == pytest.approx(average_precision(truth, predictions, limit)[0], abs=1e-12)


def test_any_draw_is_cocos_ap_of_the_drawn_tiles(crowded: DatasetSpec, crowded_answers: Answers) -> None:
    truth, predictions = to_coco(crowded.tiles("train"), crowded_answers, crowded.classes)
    matches, _ = match(truth, predictions, 100)
    weights = draw_tiles(len(truth["images"]), 5, seed=3)
    for row, ap in zip(weights, weighted_ap(matches, weights), strict=True):
        drawn = {"images": [], "annotations": [], "categories": truth["categories"]}
        found = []
        for image, times in zip(truth["images"], row, strict=True):
            for _ in range(times):
                number = len(drawn["images"]) + 1
                drawn["images"].append({**image, "id": number})
                for annotation in (a for a in truth["annotations"] if a["image_id"] == image["id"]):
                    copied = {**annotation, "id": len(drawn["annotations"]) + 1, "image_id": number}
                    drawn["annotations"].append(copied)
                found += [{**p, "image_id": number} for p in predictions if p["image_id"] == image["id"]]
        assert row.max() > 1
        assert ap == pytest.approx(pycocotools(drawn, found, ious=IOUS)[:, 0], abs=1e-12)


def test_draws_depend_on_the_seed_alone() -> None:
    assert np.array_equal(draw_tiles(9, 4, 1), draw_tiles(9, 4, 1))
    assert not np.array_equal(draw_tiles(9, 4, 1), draw_tiles(9, 4, 2))
    assert (draw_tiles(9, 4, 1).sum(axis=1) == 9).all()


def test_regions_are_drawn_whole() -> None:
    regions = ["a", "a", "b", None, "b", None]
    weights = draw_tiles(6, 50, 0, regions)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, 3] != weights[:, 5]).any()
    assert (weights[:, [0, 2, 3, 5]].sum(axis=1) == 4).all()


def test_intervals_hold_the_figure_and_shrink_with_more_tiles(crowded: DatasetSpec, crowded_answers: Answers) -> None:
    result = judge(crowded, crowded_answers, resamples=300)
    assert set(result.intervals) == {"ap", "ap50", "ap75", "ap30", "f1", "precision", "recall", "f1_30"}
    for name, interval in result.intervals.items():
        assert interval[0] <= getattr(result, name) <= interval[1], name
        assert interval[0] < interval[1]
    assert set(result.region_intervals) == set(result.intervals)
    assert judge(crowded, crowded_answers, resamples=300).intervals == result.intervals
    names = sorted(result.per_image)
    few, many = stored_matches(result, names[:8]), stored_matches(result, names)
    spread = [np.nanstd(weighted_ap(m, draw_tiles(len(m.truths), 200, 0))[:, 1]) for m in (few, many)]
    assert spread[1] < spread[0]


def test_matches_survive_json(crowded: DatasetSpec, crowded_answers: Answers) -> None:
    result = judge(crowded, crowded_answers)
    again = Evaluation.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False)))
    names = list(result.per_image)
    first, second = stored_matches(result, names), stored_matches(again, names)
    for field in vars(first):
        assert np.array_equal(getattr(first, field), getattr(second, field)), field
    once = np.ones((1, len(names)), dtype=np.int64)
    assert weighted_ap(second, once)[0, 1] == pytest.approx(result.ap50)


def test_the_better_of_two_is_recognised(dataset: DatasetSpec) -> None:
    tiles = dataset.tiles("train")
    weak, good = judge(dataset, guesses(dataset, 0)), judge(dataset, [[detection(m) for m in truths(t)] for t in tiles])
    told = compare_evaluations(weak, good, resamples=200)
    for name in ("ap", "ap50", "ap30", "f1"):
        assert told[name].a == pytest.approx(getattr(weak, name))
        assert told[name].b == pytest.approx(getattr(good, name))
        assert told[name].difference == pytest.approx(getattr(good, name) - getattr(weak, name))
    assert 0 < told["ap"].low <= told["ap"].difference <= told["ap"].high
    assert told["ap"].b_better == 1
    other = compare_evaluations(good, weak, resamples=200)
    assert (other["ap"].low, other["ap"].b_better) == (pytest.approx(-told["ap"].high), 0)
    assert compare_evaluations(weak, good, resamples=50, by_region=True)["ap"].b_better == 1


def test_equal_detectors_differ_by_nothing(dataset: DatasetSpec) -> None:
    result = judge(dataset, guesses(dataset, 0))
    told = compare_evaluations(result, result, resamples=50)
    assert {(d.difference, d.low, d.high, d.b_better) for d in told.values()} == {(0, 0, 0, 0)}


def test_evaluations_of_other_tiles_or_labels_are_not_compared(dataset: DatasetSpec) -> None:
    result = judge(dataset, guesses(dataset, 0))
    fewer = dict(list(result.per_image.items())[:-1])
    with pytest.raises(DatasetError, match="different tiles"):
        compare_evaluations(result, replace(result, per_image=fewer))
    relabelled = {name: {**tile, "truths": [99]} for name, tile in result.per_image.items()}
    with pytest.raises(DatasetError, match="different annotations"):
        compare_evaluations(result, replace(result, per_image=relabelled))
    old = {name: {k: v for k, v in tile.items() if k != "detections"} for name, tile in result.per_image.items()}
    with pytest.raises(DatasetError, match="evaluate the checkpoint again"):
        compare_evaluations(result, replace(result, per_image=old))


def test_nothing_to_compare_is_said_as_none(dataset: DatasetSpec) -> None:
    silent = judge(dataset, [[] for _ in dataset.tiles("train")])
    told = compare_evaluations(silent, silent, resamples=20)
    assert told["ap"].difference == 0
    assert told["precision"].difference is None
    json.dumps({name: d.to_json() for name, d in told.items()}, allow_nan=False)
