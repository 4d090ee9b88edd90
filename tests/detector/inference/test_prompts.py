"""Boxes that somebody draws: the mask of what is in them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely

from ml_backend.detector import ChipInput, Detector, PromptError
from tests.detector.rounding import rounding

BOXES = [(4.0, 6.0, 30.0, 28.0), (20.5, 20.0, 60.0, 63.5), (4.0, 6.0, 31.0, 28.0)]


def test_every_box_gets_its_answer_in_order(detector: Detector, chips: list[ChipInput]) -> None:
    answers = detector.segment(chips[0], BOXES)
    assert len(answers) == len(BOXES)  # the third nearly repeats the first: nothing is suppressed
    assert any(answer.rings for answer in answers)
    for box, answer in zip(BOXES, answers, strict=True):
        assert answer.class_name == "RTS"
        assert answer.stage_boxes.shape == (3, 4)
        numbers = [answer.score, *answer.stage_scores, answer.mask_entropy, answer.class_entropy]
        assert all(0 <= number <= 1 for number in numbers)
        x1, y1, x2, y2 = box
        if answer.rings:
            inside = shapely.box(math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2))
            assert inside.covers(shapely.Polygon(answer.rings[0]))
    alone = [detector.segment(chips[0], [box])[0] for box in BOXES]
    assert [a.score for a in alone] == pytest.approx([a.score for a in answers], abs=rounding(detector.model))
    assert detector.segment(chips[0], []) == []


def test_a_found_box_gives_the_found_mask(detector: Detector, chips: list[ChipInput]) -> None:
    (result,) = detector.predict(chips[:1])
    for detection in result.detections[:5]:
        (answer,) = detector.segment(chips[0], [detection.stage_boxes[-1].tolist()])
        one, other = (shapely.Polygon(d.rings[0], d.rings[1:]) for d in (detection, answer))
        assert one.intersection(other).area > 0.9 * one.union(other).area
        assert answer.mask_entropy == pytest.approx(detection.mask_entropy, abs=1e-3)


def test_the_class_may_be_given(detector: Detector, chips: list[ChipInput]) -> None:
    given, free = (detector.segment(chips[0], BOXES, class_name=name) for name in ("RTS", None))
    assert [d.to_json() for d in given] == [d.to_json() for d in free]  # it knows one class
    with pytest.raises(PromptError, match="class 'lake' is unknown to the model: use RTS"):
        detector.segment(chips[0], BOXES, class_name="lake")


def test_boxes_are_clipped_to_the_tile(detector: Detector, chips: list[ChipInput]) -> None:
    over, exact = detector.segment(chips[0], [(-10, 30, 20, 99), (0, 30, 20, 64)])
    assert over.to_json() == exact.to_json()


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((5, 5, 5, 9), "5,5,5,9 is empty"),
        ((9, 5, 5, 9), "is empty"),
        ((70, 5, 90, 9), "70,5,90,9 lies outside its tile of 64 x 64 pixels"),
        ((-9, -9, 0, 4), "lies outside"),
        ((math.nan, 0, 5, 5), "nan,0,5,5 is not four numbers"),
        ((0, 0, math.inf, 5), "is not four numbers"),
        ((0, 0, 5), "0,0,5 is not four numbers: give x1,y1,x2,y2 in tile pixels"),
    ],
)
def test_what_is_no_box_on_the_tile_is_refused(
    box: tuple[float, ...], problem: str, detector: Detector, chips: list[ChipInput]
) -> None:
    with pytest.raises(PromptError, match=problem):
        detector.segment(chips[0], [box])


def test_on_a_large_tile_only_the_surroundings_are_looked_at(
    detector: Detector, mosaic: ChipInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector, "window", (64, 64))
    box = (70.0, 66.0, 100.0, 90.0)  # its window is 53..117 x 46..110
    (answer,) = detector.segment(mosaic, [box])
    far = {name: array.copy() for name, array in mosaic.arrays.items()}
    far["rgb"][:, :40] = 0
    assert detector.segment(ChipInput(far, {}), [box])[0].to_json() == answer.to_json()
    near = {name: array.copy() for name, array in mosaic.arrays.items()}
    near["rgb"][:, :60] = 0
    assert detector.segment(ChipInput(near, {}), [box])[0].to_json() != answer.to_json()
    (large,) = detector.segment(mosaic, [(5.0, 5.0, 120.0, 120.0)])
    assert np.ptp(large.stage_boxes[0].reshape(2, 2), axis=0).max() > 64
