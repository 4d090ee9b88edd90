"""Training batches: aligned, balanced, and a pure function of the seed and the step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ml_backend.detector import ChipInput, DatasetError, DetectorConfig, ModalitySpec, read_dataset
from ml_backend.detector.chips import network_input
from ml_backend.detector.data import TrainingBatches, apply_symmetry, draw_order, hide_modalities, training_sample
from ml_backend.detector.dataset import AnnotatedInstance, DatasetSpec, Tile
from ml_backend.detector.validation import check_dataset

CONFIG = DetectorConfig(iterations=12, batch_size=4, modalities=("rgb", "relative_elevation"), anchor="rgb")


@pytest.fixture(scope="module")
def dataset(dataset_dir: Path) -> DatasetSpec:
    spec = read_dataset(dataset_dir)
    return spec.with_modalities(check_dataset(spec, CONFIG.modalities, ["train"]))


def test_a_step_is_the_same_whenever_and_in_whatever_order_it_is_read(dataset: DatasetSpec) -> None:
    forward, backward = TrainingBatches(dataset, CONFIG), TrainingBatches(dataset, CONFIG)
    first = [forward[step] for step in range(4)]
    second = [backward[step] for step in reversed(range(4))][::-1]
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a["inputs"], b["inputs"], strict=True):
            assert torch.equal(x, y)
        for x, y in zip(a["data_samples"], b["data_samples"], strict=True):
            assert torch.equal(x.gt_instances.bboxes, y.gt_instances.bboxes)
    other = TrainingBatches(dataset, replace(CONFIG, seed=1))[0]
    assert not all(torch.equal(x, y) for x, y in zip(first[0]["inputs"], other["inputs"], strict=True))


def test_masks_follow_their_pixels_through_every_symmetry() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((3, 8, 8)).astype(np.float32)
    mask = image[0] > 0.5
    seen = set()
    for symmetry in range(8):
        turned, moved = apply_symmetry(image, symmetry), apply_symmetry(mask[None], symmetry)[0]
        assert np.array_equal(turned[0] > 0.5, moved)
        seen.add(turned.tobytes())
    assert len(seen) == 8


def test_boxes_are_tight_around_masks(dataset: DatasetSpec) -> None:
    for sample in TrainingBatches(dataset, CONFIG)[0]["data_samples"]:
        for box, mask in zip(sample.gt_instances.bboxes.int().tolist(), sample.gt_instances.masks.masks, strict=True):
            x1, y1, x2, y2 = box
            assert mask[y1:y2, x1:x2].sum() == mask.sum()
            assert mask[y1].any()
            assert mask[y2 - 1].any()
            assert mask[:, x1].any()
            assert mask[:, x2 - 1].any()


def test_empty_tiles_keep_their_share_and_every_tile_is_used() -> None:
    full = [Tile(i, f"{i}.tif", 8, 8, None, (AnnotatedInstance(i, [], 0, False),)) for i in range(6)]
    empty = [Tile(i, f"{i}.tif", 8, 8, None, ()) for i in range(6, 60)]
    order = draw_order((*full, *empty), replace(CONFIG, iterations=100, empty_share=0.2))
    assert set(range(6)) <= set(order)
    assert np.mean(order >= 6) == pytest.approx(0.2, abs=0.05)


def test_without_empty_tiles_all_are_drawn_equally_often() -> None:
    full = tuple(Tile(i, f"{i}.tif", 8, 8, None, (AnnotatedInstance(i, [], 0, False),)) for i in range(6))
    counts = np.bincount(draw_order(full, replace(CONFIG, iterations=6, batch_size=4)))
    assert counts.tolist() == [4] * 6


def test_dropout_hides_only_other_modalities() -> None:
    array = np.zeros((1, 4, 4), dtype=np.float32)
    chip = ChipInput({"rgb": array, "relative_elevation": array}, {})
    config = replace(CONFIG, modality_dropout=0.5)
    kept = [set(hide_modalities(chip, config, np.random.default_rng(seed)).arrays) for seed in range(50)]
    assert all("rgb" in names for names in kept)
    assert 10 < sum("relative_elevation" in names for names in kept) < 40
    alone = ChipInput({"relative_elevation": array}, {})
    assert all(hide_modalities(alone, config, np.random.default_rng(seed)).arrays for seed in range(20)), (
        "a tile's only modality is never hidden"
    )


def test_ignored_and_invisible_instances_are_neither_object_nor_background() -> None:
    instances = (
        AnnotatedInstance(1, [], 0, False),
        AnnotatedInstance(2, [], 0, True),
        AnnotatedInstance(3, [], 0, False),
        AnnotatedInstance(4, [], 0, False),
    )
    masks = np.zeros((4, 16, 16), dtype=bool)
    masks[0, 2:8, 2:8] = True
    masks[1, 10:14, 10:14] = True
    masks[2, 0, 0] = True  # one pixel; the fourth has none
    sample = training_sample(Tile(1, "t.tif", 16, 16, None, instances), masks)
    assert sample.gt_instances.bboxes.tolist() == [[2, 2, 8, 8]]
    assert sample.ignored_instances.bboxes.tolist() == [[10, 10, 14, 14], [0, 0, 1, 1]]


SPECS = (
    ModalitySpec("rgb", ("r", "g"), mean=(1.0, 2.0), std=(2.0, 4.0)),
    ModalitySpec("dem", ("z",), mean=(10.0,), std=(5.0,)),
)


def test_network_input_is_normalised_bands_then_validity() -> None:
    rgb = np.full((2, 4, 4), 5, dtype=np.float32)
    dem = np.full((1, 4, 4), 0, dtype=np.float32)
    dem[0, 0, 0] = np.nan
    valid = np.ones((4, 4), dtype=bool)
    valid[3, 3] = False
    tensor, own = network_input(ChipInput({"rgb": rgb, "dem": dem}, {"rgb": valid}), SPECS)
    assert own == (4, 4)
    assert tensor[:, 1, 1].tolist() == [2.0, 0.75, -2.0, 1.0, 1.0]
    assert tensor[:, 0, 0].tolist() == [2.0, 0.75, 0.0, 1.0, 0.0]
    assert tensor[:, 3, 3].tolist() == [0.0, 0.0, -2.0, 0.0, 1.0]


def test_absent_equals_wholly_invalid() -> None:
    rgb, dem = np.ones((2, 4, 4), dtype=np.float32), np.full((1, 4, 4), 77, dtype=np.float32)
    absent, _ = network_input(ChipInput({"rgb": rgb}, {}), SPECS)
    invalid, _ = network_input(ChipInput({"rgb": rgb, "dem": dem}, {"dem": np.zeros((4, 4), dtype=bool)}), SPECS)
    assert torch.equal(absent, invalid)


def test_resampling_keeps_validity_binary() -> None:
    rgb = np.random.default_rng(0).random((2, 48, 48)).astype(np.float32)
    rgb[:, :10] = np.nan
    tensor, own = network_input(ChipInput({"rgb": rgb}, {}), SPECS, reduction=1.5)
    assert (tuple(tensor.shape), own) == ((5, 32, 32), (48, 48))
    assert set(tensor[3].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "none of the model's modalities"),
        ({"rgb": np.zeros((3, 4, 4), np.float32)}, "'rgb' has shape .3, 4, 4. instead of .2, 4, 4."),
        ({"rgb": np.zeros((2, 4, 4), np.float32), "dem": np.zeros((1, 5, 4), np.float32)}, "to one grid"),
    ],
)
def test_contradictory_chips_are_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        network_input(ChipInput(arrays, {}), SPECS)


def test_masks_are_resampled_with_the_image(dataset: DatasetSpec) -> None:
    half = TrainingBatches(dataset, replace(CONFIG, image_size=32))[0]
    whole = TrainingBatches(dataset, CONFIG)[0]
    for small, large in zip(half["data_samples"], whole["data_samples"], strict=True):
        assert small.gt_instances.masks.masks.shape[1:] == (32, 32)
        difference = (small.gt_instances.bboxes * 2 - large.gt_instances.bboxes).abs()
        assert difference.numel() == 0 or difference.max() <= 2
