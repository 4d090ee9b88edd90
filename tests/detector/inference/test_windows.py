"""Tiles larger than the window: one slump, one instance, wherever the windows' edges lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from ml_backend.detector import (
    ChipInput,
    ConfigError,
    DatasetError,
    Detector,
    DetectorConfig,
    ModalitySpec,
)
from ml_backend.detector.inference import network
from ml_backend.detector.inference.instances import DetectedInstance
from ml_backend.detector.inference.merging import merge
from ml_backend.detector.inference.windows import Window, plan_windows
from ml_backend.detector.masks import rings_mask

IDS = ModalitySpec("ids", ("id",), mean=(0.0,), std=(1.0,))


class PerfectWindows:
    """Stands in for the network: the chip's pixels are the numbers of the slumps, and it finds what the window shows.

    With ``apart`` it finds every connected part by itself, as a detector must that sees no more than the window.
    """

    def __init__(self, apart: bool) -> None:
        self.apart = apart
        self.windows = 0

    def __call__(self, model: Any, tiles: Sequence[network.Prepared], symmetries: Any) -> tuple[list[Any], np.ndarray]:
        self.windows += len(tiles)
        return [self.found(tensor[0].numpy()) for tensor, _ in tiles], np.ones((len(tiles), 2), dtype=np.float32)

    def found(self, ids: np.ndarray) -> dict[str, torch.Tensor]:
        numbers = [n for n in np.unique(ids) if n > 0]
        masks = [ids == n for n in numbers]
        if self.apart:
            labelled = [ndimage.label(mask) for mask in masks]
            masks = [parts == part + 1 for parts, count in labelled for part in range(count)]
        count = len(masks)
        return {
            "masks": torch.from_numpy(np.array(masks, dtype=bool).reshape(count, *ids.shape)),
            "scores": torch.full((count,), 0.9),
            "labels": torch.zeros(count, dtype=torch.int64),
            "stage_scores": torch.full((count, 3), 0.8),
            "stage_boxes": torch.zeros(count, 3, 4),
            "mask_entropy": torch.full((count,), 0.1),
            "class_entropy": torch.full((count,), 0.2),
        }


def stand_in() -> Detector:
    return Detector(nn.Identity(), DetectorConfig(), ("RTS",), (IDS,), torch.device("cpu"))


def found_masks(ids: np.ndarray, window: int, overlap: int, apart: bool) -> list[np.ndarray]:
    """What a detector that is perfect on windows says about a scene of numbered slumps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "detect", PerfectWindows(apart))
        chip = ChipInput({"ids": ids[None].astype(np.float32)}, {})
        options: dict[str, Any] = {"window": window, "overlap": overlap, "tolerance": 0, "min_pixels": 1}
        (result,) = stand_in().predict([chip], max_detections=10_000, **options)
    return [rings_mask(detection.rings, *ids.shape) for detection in result.detections]


def same_masks(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return sorted(mask.tobytes() for mask in one) == sorted(mask.tobytes() for mask in other)


@st.composite
def scenes(draw: st.DrawFn) -> np.ndarray:
    """Numbered slumps [H, W]: ellipses and bars that touch, bite into each other and cross window edges."""
    height, width = draw(st.integers(33, 110)), draw(st.integers(33, 110))
    y, x = np.mgrid[:height, :width]
    ids = np.zeros((height, width), dtype=int)
    for number in range(1, draw(st.integers(1, 9))):
        cy, cx = draw(st.integers(0, height)), draw(st.integers(0, width))
        a, b = draw(st.integers(2, 45)), draw(st.integers(2, 45))
        ids[((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1] = number
    whole = np.zeros_like(ids)
    for number in range(1, 10):  # what another slump cut in two is two
        parts, _ = ndimage.label(ids == number)
        whole[parts > 0] = parts[parts > 0] + whole.max()
    return whole


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(32, 64), st.integers(4, 16), st.booleans())
def test_perfect_windows_make_the_whole_scene(ids: np.ndarray, window: int, overlap: int, apart: bool) -> None:
    truth = [ids == number for number in range(1, ids.max() + 1)]
    assert same_masks(found_masks(ids, window, overlap, apart), truth)


def test_touching_slumps_on_a_window_edge_stay_two() -> None:
    ids = np.zeros((64, 112), dtype=int)
    ids[20:40, 10:100], ids[40:55, 10:100] = 1, 2
    assert same_masks(found_masks(ids, 64, 16, apart=False), [ids == 1, ids == 2])


def test_a_slump_whose_arms_one_window_sees_apart_is_one() -> None:
    ids = np.zeros((64, 112), dtype=int)
    ids[10:16, 5:100] = ids[30:36, 5:100] = ids[50:56, 5:100] = 1
    ids[10:36, 94:100] = ids[30:56, 5:11] = 1  # a meander: left windows join other arms than right ones
    assert same_masks(found_masks(ids, 64, 16, apart=True), [ids == 1])


@given(st.integers(1, 300), st.integers(1, 300), st.integers(32, 90), st.integers(4, 16))
def test_windows_cover_the_tile_and_overlap_as_asked(height: int, width: int, side: int, overlap: int) -> None:
    windows = plan_windows((height, width), (side, side), overlap)
    seen = np.zeros((height, width), dtype=int)
    for window in windows:
        assert window.size == (min(side, height), min(side, width))
        seen[window.top : window.bottom, window.left : window.right] += 1
    assert seen.min() >= 1
    for axis in ((w.left, w.right) for w in windows), ((w.top, w.bottom) for w in windows):
        spans = sorted(set(axis))
        assert all(next_[0] + overlap <= last[1] for last, next_ in pairwise(spans))


def piece(mask: np.ndarray, left: int, top: int, score: float, entropy: float = 0.5) -> DetectedInstance:
    box = np.array([left, top, left + mask.shape[1], top + mask.shape[0]], dtype=np.float32)
    return DetectedInstance(
        left, top, mask, 0, score, np.full(3, score, np.float32), np.tile(box, (3, 1)), entropy, entropy
    )


LEFT, RIGHT, SIZE = Window(0, 0, 64, 64), Window(48, 0, 112, 64), (64, 112)


def full(height: int, width: int) -> np.ndarray:
    return np.ones((height, width), dtype=bool)


def test_halves_are_joined_with_means_weighted_by_their_pixels() -> None:
    left, right = piece(full(10, 44), 20, 5, 0.9, 0.2), piece(full(10, 64), 48, 5, 0.6, 0.8)
    (joined,) = merge([(LEFT, [left]), (RIGHT, [right])], SIZE)
    assert joined.box == (20, 5, 112, 15)
    weights = [440, 640]
    assert joined.score == pytest.approx(np.average([0.9, 0.6], weights=weights))
    assert joined.stage_scores == pytest.approx(np.full(3, np.average([0.9, 0.6], weights=weights)))
    assert joined.mask_entropy == pytest.approx(np.average([0.2, 0.8], weights=weights))
    assert joined.class_entropy == joined.mask_entropy
    assert joined.stage_boxes.tolist() == [[20, 5, 112, 15]] * 3


def test_a_window_that_sees_all_of_it_decides() -> None:
    whole, half = piece(full(10, 30), 50, 5, 0.7), piece(full(10, 14), 50, 5, 0.9)
    (kept,) = merge([(LEFT, [half]), (RIGHT, [whole])], SIZE)
    assert kept is whole


def test_a_scrap_at_a_window_edge_is_no_second_slump() -> None:
    whole, scrap = piece(full(20, 40), 52, 5, 0.9), piece(full(4, 6), 58, 8, 0.4)
    (kept,) = merge([(LEFT, [scrap]), (RIGHT, [whole])], SIZE)
    assert kept is whole


def test_what_windows_see_of_other_classes_or_elsewhere_stays_apart() -> None:
    one, other = piece(full(10, 12), 50, 5, 0.9), piece(full(10, 12), 50, 5, 0.8)
    assert len(merge([(LEFT, [one]), (RIGHT, [replace(other, label=1)])], SIZE)) == 2
    assert len(merge([(LEFT, [one]), (RIGHT, [replace(other, top=30)])], SIZE)) == 2
    assert len(merge([(LEFT, [one, other])], SIZE)) == 2  # the network's own suppression has let both pass


def test_only_the_largest_part_counts_and_is_outlined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "detect", PerfectWindows(apart=False))
    ids = np.zeros((64, 64), dtype=int)
    ids[5:8, 5:8] = ids[20:23, 20:22] = ids[40:42, 40:42] = 1  # 9, 6 and 4 pixels
    chip = ChipInput({"ids": ids[None].astype(np.float32)}, {})
    assert stand_in().predict([chip], min_pixels=10)[0].detections == ()
    (found,) = stand_in().predict([chip], min_pixels=9, tolerance=0)[0].detections
    assert rings_mask(found.rings, 64, 64).nonzero()[0].tolist() == [5, 5, 5, 6, 6, 6, 7, 7, 7]


def test_the_largest_part_is_as_a_crop_of_its_own() -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[0, 0] = mask[2:5, 4:8] = mask[5, 8] = True  # corners do not connect
    part = piece(mask, 10, 20, 0.9).largest_part()
    assert part.box == (14, 22, 18, 25)
    assert part.mask.all()
    assert piece(full(3, 3), 1, 2, 0.5).largest_part().box == (1, 2, 4, 5)
    assert piece(full(0, 0), 0, 0, 0.5).largest_part().pixels == 0


def test_pieces_keep_their_parts_until_windows_are_merged() -> None:
    """The left window sees two arms of a slump as one instance; what joins them lies in the right one."""
    ids = np.zeros((64, 112), dtype=int)
    ids[10:14, 5:100] = ids[40:44, 20:100] = ids[10:44, 96:100] = 1
    assert same_masks(found_masks(ids, 64, 16, apart=False), [ids == 1])


def test_what_lies_wholly_where_there_are_no_data_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "detect", PerfectWindows(apart=False))
    ids = np.zeros((64, 64), dtype=int)
    ids[5:15, 5:15], ids[30:40, 30:40] = 1, 2
    valid = np.ones((64, 64), dtype=bool)
    found = {}
    for name, hidden in (("none", 0), ("a part", 14), ("all", 15)):
        valid[:hidden, :hidden] = False
        # the stand-in sees the numbers all the same, as a network may that answers where it sees nothing
        monkeypatch.setattr(Detector, "_prepare", lambda self, chip: (torch.from_numpy(ids[None]), (64, 64)))
        chip = ChipInput({"ids": ids[None].astype(np.float32)}, {"ids": valid.copy()})
        found[name] = len(stand_in().predict([chip])[0].detections)
    assert found == {"none": 2, "a part": 2, "all": 1}


def test_windows_without_data_are_not_looked_at_and_count_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network_ = PerfectWindows(apart=False)
    monkeypatch.setattr(network, "detect", network_)
    ids = np.zeros((1, 64, 256), dtype=np.float32)
    ids[:, :, 140:] = np.nan
    (result,) = stand_in().predict([ChipInput({"ids": ids}, {})], window=64, overlap=16)
    assert network_.windows == 3
    assert result.embedding.tolist() == [1, 1]
    stand_in().predict([ChipInput({"ids": np.full_like(ids, np.nan)}, {})], window=64, overlap=16)
    assert network_.windows == 4


def test_a_window_is_what_a_tile_of_its_own_would_be(detector: Detector, mosaic: ChipInput) -> None:
    """With the real network: two windows whose results do not meet are two tiles."""
    mosaic = Window(0, 0, 124, 124).of(mosaic)
    (alone,) = detector.predict([LEFT.of(mosaic)], min_pixels=1)
    (large,) = detector.predict([mosaic], window=64, overlap=4, min_pixels=1, batch_size=1)
    # so far from the other windows that nothing there joins or replaces it
    own = {tuple(d.stage_boxes.ravel().tolist()) for d in alone.detections if d.rings[0].max() < 58}
    assert own
    assert own <= {tuple(d.stage_boxes.ravel().tolist()) for d in large.detections}
    scores = [d.score for d in large.detections]
    assert scores == sorted(scores, reverse=True)
    assert max(d.rings[0].max() for d in large.detections) > 64
    assert large.embedding.shape == alone.embedding.shape


def test_tiles_larger_than_those_of_the_training_are_cut_by_default(detector: Detector, mosaic: ChipInput) -> None:
    assert detector.window == (64, 64)
    (cut,), (default,) = detector.predict([mosaic], window=64, overlap=16), detector.predict([mosaic])
    assert [d.to_json() for d in cut.detections] == [d.to_json() for d in default.detections]
    assert np.array_equal(cut.embedding, default.embedding)


def test_a_tile_not_larger_than_the_window_is_not_touched(detector: Detector, mosaic: ChipInput) -> None:
    (whole,), (small,) = detector.predict([mosaic], window=128), detector.predict([mosaic], window=500)
    assert [d.to_json() for d in whole.detections] == [d.to_json() for d in small.detections]
    assert np.array_equal(whole.embedding, small.embedding)


def test_windows_that_make_no_sense_are_refused(detector: Detector, mosaic: ChipInput) -> None:
    with pytest.raises(ConfigError, match="window of 16 x 16 pixels"):
        detector.predict([mosaic], window=16)
    for overlap in (0, 40):
        with pytest.raises(ConfigError, match=f"overlap of {overlap} pixels .* give 4 to 32"):
            detector.predict([mosaic], window=64, overlap=overlap)


def test_modalities_of_other_sizes_are_refused_before_they_are_cut(detector: Detector, mosaic: ChipInput) -> None:
    wrong = {**mosaic.arrays, "relative_elevation": np.zeros((1, 256, 256), dtype=np.float32)}
    with pytest.raises(DatasetError, match="'relative_elevation' has shape"):
        detector.predict([ChipInput(wrong, {})], window=64)
    with pytest.raises(DatasetError, match="validity of modality 'rgb' has shape"):
        detector.predict([ChipInput(mosaic.arrays, {"rgb": np.ones((256, 256), dtype=bool)})], window=64)
