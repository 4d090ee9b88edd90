"""Tiles that are not square: their shape and scale are kept, and what goes through the network together is alike."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ml_backend.detector import ChipInput, DetectorConfig, ModalitySpec, read_dataset
from ml_backend.detector.chips import network_input, network_size
from ml_backend.detector.data import TrainingBatches, batches, turn
from ml_backend.detector.data.augmentation import Sample
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.validation import check_dataset
from tests.detector.files import crop_tiles

CONFIG = DetectorConfig(iterations=40, batch_size=4, modalities=("rgb",), anchor="rgb")
SPEC = ModalitySpec("rgb", ("red",), mean=(0.0,), std=(1.0,))
SHAPES = ((96, 96), (96, 32), (32, 96), (64, 32))


@pytest.fixture(scope="module")
def mixed(generate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    """Tiles of four shapes, two of which are each other's turn."""
    root = generate(tmp_path_factory.mktemp("mixed") / "data", train=16, val=0, test=0, size=96, modalities=("rgb",))
    crop_tiles(root, lambda name: SHAPES[int(name[6:10]) % len(SHAPES)])
    spec = read_dataset(root)
    return spec.with_modalities(check_dataset(spec, CONFIG.modalities, ["train"]))


def shapes_of(dataset: DatasetSpec, config: DetectorConfig, steps: int) -> list[list[tuple[int, int]]]:
    steps_of = TrainingBatches(dataset, config)
    return [[(x.shape[1], x.shape[2]) for x in steps_of[step]["inputs"]] for step in range(steps)]


def padding(shapes: list[list[tuple[int, int]]]) -> float:
    """Share of what the network computes that is no tile."""
    own = sum(height * width for step in shapes for height, width in step)
    padded = sum(len(step) * max(h for h, _ in step) * max(w for _, w in step) for step in shapes)
    return 1 - own / padded


def test_a_reduced_tile_keeps_its_shape() -> None:
    rgb = np.random.default_rng(0).random((1, 30, 400)).astype(np.float32)
    tensor, own = network_input(ChipInput({"rgb": rgb}, {}), (SPEC,), reduction=2.5)
    assert (tuple(tensor.shape[1:]), own) == ((12, 160), (30, 400))
    assert network_size((1, 400), 4.0) == (1, 100)


def test_all_training_tiles_are_reduced_by_one_factor(mixed: DatasetSpec) -> None:
    """The longest side of the largest becomes image_size, whatever the others' is."""
    whole = shapes_of(mixed, CONFIG, 8)
    half = shapes_of(mixed, replace(CONFIG, image_size=48), 8)
    assert [[(2 * h, 2 * w) for h, w in step] for step in half] == whole


def test_masks_keep_their_share_of_a_reduced_tile(mixed: DatasetSpec) -> None:
    whole, half = (TrainingBatches(mixed, replace(CONFIG, image_size=size)) for size in (None, 48))
    for step in range(4):
        for large, small in zip(whole[step]["data_samples"], half[step]["data_samples"], strict=True):
            if len(large.gt_instances) == len(small.gt_instances):
                assert torch.allclose(2 * small.gt_instances.bboxes, large.gt_instances.bboxes, atol=4)


def test_tiles_of_a_batch_are_of_like_shape(mixed: DatasetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = padding(shapes_of(mixed, CONFIG, 40))
    monkeypatch.setattr(batches, "by_shape", lambda order, sizes, config: order)
    as_drawn = padding(shapes_of(mixed, CONFIG, 40))
    assert alike < 0.1 < 0.4 < as_drawn


def test_oblong_tiles_of_a_batch_all_stand_or_all_lie(generate: Callable[..., Path], tmp_path: Path) -> None:
    root = generate(tmp_path / "oblong", train=6, val=0, test=0, size=64, modalities=("rgb",))
    crop_tiles(root, lambda name: (64, 32))
    spec = read_dataset(root)
    seen = shapes_of(spec.with_modalities(check_dataset(spec, ("rgb",), ["train"])), CONFIG, 40)
    assert padding(seen) == 0
    assert {step[0] for step in seen} == {(64, 32), (32, 64)}


def test_sorting_by_shape_loses_and_doubles_no_tile(mixed: DatasetSpec) -> None:
    drawn = batches.draw_order(mixed.usable_tiles("train"), CONFIG)
    assert Counter(TrainingBatches(mixed, CONFIG).order.tolist()) == Counter(drawn.tolist())
    assert TrainingBatches(mixed, CONFIG).order.tolist() != drawn.tolist()


def test_an_oblong_tile_is_turned_in_all_four_ways_that_make_it_stand() -> None:
    array = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    sample = Sample(torch.from_numpy(array), (), np.zeros((0, 3, 4), dtype=bool))
    seen: Counter[bytes] = Counter()
    for seed in range(400):
        turned = turn(sample, np.random.default_rng(seed), upright=True)
        assert turned.size == (4, 3)
        seen[turned.pixels.numpy().tobytes()] += 1
    assert len(seen) == 4
    assert min(seen.values()) > 60
