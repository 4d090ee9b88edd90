"""AP is COCO's: the same numbers as pycocotools on the same detections."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ml_backend.detector import Detection
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.evaluation import average_precision, to_coco
from ml_backend.detector.evaluation.coco import (
    ANY_SIZE,
    IOUS,
    SIZES,
    box_predictions,
    challenge,
    coco_scores,
    mean_of_classes,
)
from ml_backend.detector.masks import encode_rle
from tests.detector.evaluation.answers import Answers, guesses, pycocotools


def test_average_precision_is_pycocotools(dataset: DatasetSpec) -> None:
    truth, predictions = to_coco(dataset.tiles("train"), guesses(dataset, 0), dataset.classes)
    ap, ar = average_precision(truth, predictions, 100)
    assert ap == pytest.approx(pycocotools(truth, predictions, ious=IOUS)[:, 0])
    assert 0.1 < ap[1:].mean() < 0.9
    assert ar[1] >= ar[-1]


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_classes_ignored_regions_and_limits_are_treated_as_pycocotools_does(
    crowded: DatasetSpec, crowded_answers: list[list[Detection]], kind: str, limit: int
) -> None:
    tiles = crowded.tiles("train")
    truth, masks = to_coco(tiles, crowded_answers, crowded.classes)
    assert any(a["iscrowd"] for a in truth["annotations"])
    predictions = box_predictions(tiles, crowded_answers, crowded.classes) if kind == "bbox" else masks
    ap, _ = average_precision(truth, predictions, limit, kind=kind)
    expected = pycocotools(truth, predictions, kind=kind, max_detections=limit, ious=IOUS)[:, 0]
    assert ap == pytest.approx(expected)
    assert 0 < ap[1] < 1


def test_sizes_are_pycocotools_area_ranges(crowded: DatasetSpec, crowded_answers: Answers) -> None:
    truth, predictions = to_coco(crowded.tiles("train"), crowded_answers, crowded.classes)
    bins = [ANY_SIZE, (0, 99), (100, 199), (200, 1e10)]
    own = mean_of_classes(coco_scores(truth, predictions, 100, sizes=bins).ap)  # [size, IoU]
    assert own.T == pytest.approx(pycocotools(truth, predictions, sizes=bins, ious=IOUS))


def test_the_challenge_counts_ten_per_tile_and_drops_specks(crowded: DatasetSpec, crowded_answers: Answers) -> None:
    truth, predictions = to_coco(crowded.tiles("train"), crowded_answers, crowded.classes)
    speck = np.zeros((64, 64), dtype=bool)
    speck[:3, :3] = True
    rle = encode_rle(speck)
    specks = [{"image_id": i["id"], "category_id": 1, "segmentation": rle, "score": 0.99} for i in truth["images"] * 12]
    missed = [
        {**a, "id": 10_000 + n, "image_id": i["id"], "segmentation": rle, "area": 9.0, "iscrowd": 0}
        for n, (a, i) in enumerate(zip(truth["annotations"], truth["images"], strict=False))
    ]
    spoilt = {**truth, "annotations": truth["annotations"] + missed}
    expected = pycocotools(truth, predictions, max_detections=10, sizes=[ANY_SIZE, *SIZES.values()])
    told = challenge(spoilt, [*specks, *predictions])
    assert list(told) == ["all", "small", "medium", "large"]
    assert list(told.values()) == pytest.approx(expected.mean(axis=0).tolist(), nan_ok=True)
    assert coco_mask.area(rle) == 9
    undropped, _ = average_precision(spoilt, [*specks, *predictions], 10)
    assert undropped[1:].mean() != pytest.approx(told["all"], rel=0.1)


def test_the_eleventh_detection_does_not_count_in_the_challenge(dataset: DatasetSpec) -> None:
    truth, predictions = to_coco(dataset.tiles("train"), guesses(dataset, 0), dataset.classes)
    corner = np.zeros((64, 64), dtype=bool)
    corner[:5, :5] = True
    alarms = [
        {"image_id": i["id"], "category_id": 1, "segmentation": encode_rle(corner), "score": 0.999}
        for i in truth["images"] * 10
    ]
    assert challenge(truth, predictions)["all"] > 0
    assert challenge(truth, [*alarms, *predictions])["all"] == 0
