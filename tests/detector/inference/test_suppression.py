"""Nested and doubled finds: one slump, one find, and true neighbours stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.detector import ChipInput, ConfigError, Detector, TrainResult, inspect, read_dataset
from ml_backend.detector.evaluation.findings import Search, predict_split
from ml_backend.detector.evaluation.overlaps import CANDIDATES, best_max_overlap, pairs_sharing, suppressed
from ml_backend.detector.inference.instances import DetectedInstance
from ml_backend.detector.inference.merging import merge, tile_instances
from ml_backend.detector.inference.suppression import Suppressor, shared_of_smaller, survivors
from ml_backend.detector.inference.window_result import WindowResult
from ml_backend.detector.inference.windows import Window, plan_windows


def blob(left: int, top: int, width: int, height: int, score: float, label: int = 0) -> DetectedInstance:
    box = np.tile(np.array([left, top, left + width, top + height], dtype=np.float32), (3, 1))
    mask = np.ones((height, width), dtype=bool)
    return DetectedInstance(left, top, mask, label, score, np.full(3, score, np.float32), box, 0.1, 0.2)


def kept(*instances: DetectedInstance, max_overlap: float = 0.5) -> list[float]:
    suppressor = Suppressor(max_overlap)
    suppressor.add(instances)
    return [instance.score for instance in suppressor.take_finished()]


def test_what_lies_in_a_surer_find_is_left_out_and_so_is_what_lies_around_one() -> None:
    large, small = blob(0, 0, 40, 40, 0.6), blob(10, 10, 8, 8, 0.9)
    assert shared_of_smaller(large, small) == 1.0  # their IoU is .04: no suppression by IoU would see it
    assert kept(large, small) == [0.9]
    assert kept(blob(0, 0, 40, 40, 0.9), blob(10, 10, 8, 8, 0.6)) == [0.9]
    assert kept(large, small, max_overlap=1.0) == [0.9, 0.6]


def test_doubles_are_left_out_and_neighbours_that_touch_or_overlap_a_little_stay() -> None:
    assert kept(blob(0, 0, 20, 20, 0.9), blob(2, 1, 20, 20, 0.8)) == [0.9]
    assert kept(blob(0, 0, 20, 20, 0.9), blob(20, 0, 20, 20, 0.8), blob(0, 17, 20, 20, 0.7)) == [0.9, 0.8, 0.7]


def test_a_find_in_a_ring_around_it_stays() -> None:
    """A box in a box, yet no common pixel: masks decide."""
    ring = blob(0, 0, 40, 40, 0.9)
    ring.mask[10:30, 10:30] = False
    assert kept(ring, blob(12, 12, 10, 10, 0.8)) == [0.9, 0.8]


def test_another_class_may_lie_inside() -> None:
    assert kept(blob(0, 0, 40, 40, 0.9), blob(10, 10, 8, 8, 0.6, label=1)) == [0.9, 0.6]


def test_a_find_that_was_left_out_suppresses_nothing() -> None:
    assert kept(blob(0, 0, 20, 20, 0.9), blob(8, 0, 20, 20, 0.8), blob(16, 0, 20, 20, 0.7)) == [0.9, 0.7]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], list[tuple[Window, list[DetectedInstance]]]]:
    """Random instances in the windows of a tile, many of which overlap, of two classes and all different scores."""
    size = (draw(st.integers(33, 150)), draw(st.integers(33, 150)))
    windows = plan_windows(size, (48, 48), draw(st.integers(4, 24)))
    found = []
    for number, window in enumerate(windows):
        instances = []
        for index in range(draw(st.integers(0, 3))):
            width, height = (min(draw(st.integers(1, 30)), side) for side in window.size[::-1])
            left = window.left + draw(st.integers(0, window.size[1] - width))
            top = window.top + draw(st.integers(0, window.size[0] - height))
            score = 0.1 + 0.8 * ((number * 3 + index) * 0.6180339887 % 1)
            instances.append(blob(left, top, width, height, score, label=draw(st.integers(0, 1))))
        found.append((window, instances))
    return size, found


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_what_is_given_out_while_windows_come_is_what_all_windows_together_give(
    scene: tuple[tuple[int, int], list[tuple[Window, list[DetectedInstance]]]],
) -> None:
    size, found = scene
    seen = (WindowResult(window, instances, np.zeros(1, np.float32), 1, 0.0) for window, instances in found)
    streamed = tile_instances(seen, size, score_threshold=0.2, min_pixels=5, max_overlap=0.5)
    likely = [i.largest_part() for i in merge(found, size) if i.score >= 0.2 and i.largest_part().pixels >= 5]
    pairs = [
        (a, b, shared_of_smaller(likely[a], likely[b]))
        for a in range(len(likely))
        for b in range(a)
        if likely[a].label == likely[b].label
    ]
    expected = [likely[index] for index in survivors([i.score for i in likely], pairs, 0.5)]

    def plain(instances: Any) -> list[Any]:
        return sorted((i.score, i.box, i.label, i.mask.tobytes()) for i in instances)

    assert plain(streamed) == plain(expected)


@settings(max_examples=30, deadline=None)
@given(scenes())
def test_what_a_window_shows_survives_as_bytes(
    scene: tuple[tuple[int, int], list[tuple[Window, list[DetectedInstance]]]],
) -> None:
    for window, instances in scene[1]:
        back = WindowResult.from_bytes(
            WindowResult(window, instances, np.arange(3, dtype=np.float32), 7, 0.25).to_bytes()
        )
        assert (back.window, back.weight, back.seconds, back.embedding.tolist()) == (window, 7, 0.25, [0, 1, 2])
        for one, other in zip(back.instances, instances, strict=True):
            assert {n: np.asarray(v).tolist() for n, v in vars(one).items()} == {
                n: np.asarray(v).tolist() for n, v in vars(other).items()
            }


def test_what_a_window_shows_is_damaged_anywhere_and_says_so_or_is_the_same() -> None:
    whole, refused = WindowResult(Window(0, 0, 8, 8), [], np.zeros(40, np.float32), 1, 0.0).to_bytes(), 0
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        try:
            WindowResult.from_bytes(damaged)
        except (ValueError, KeyError):  # a KeyError where an array has another name
            refused += 1
    assert refused > len(whole) / 2


def test_validation_chooses_and_the_card_keeps_it_for_prediction(
    trained: TrainResult, detector: Detector, dataset_dir: Any, chips: list[ChipInput]
) -> None:
    chosen = inspect(trained.checkpoint)["metrics"]["best_max_overlap"]
    assert chosen in CANDIDATES
    assert detector.max_overlap() == chosen
    assert detector.max_overlap(0.7) == 0.7
    dataset = read_dataset(dataset_dir).with_modalities(detector.modalities)
    findings = predict_split(detector, dataset, "val", search=Search(max_overlap=1.0))
    assert pairs_sharing(findings, 0.5), "the detector knows so little that it must find things twice"
    assert best_max_overlap(findings) == chosen
    left = suppressed(findings, 0.5)
    assert not pairs_sharing(left, 0.5)
    assert sum(map(len, left.detections)) == len(left.predictions) < len(findings.predictions)
    results = detector.predict(chips[:4], max_overlap=0.5), detector.predict(chips[:4], max_overlap=1.0)
    assert sum(len(r.detections) for r in results[0]) < sum(len(r.detections) for r in results[1])
    with pytest.raises(ConfigError, match=r"largest overlap of 1\.5"):
        detector.predict(chips[:1], max_overlap=1.5)
