"""Augmentation keeps modalities, validity and masks aligned, and depends on nothing but the tile and the generator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ml_backend.detector import ConfigError, DetectorConfig, ModalitySpec, read_dataset
from ml_backend.detector.chips import network_input, read_tile
from ml_backend.detector.data import TrainingBatches
from ml_backend.detector.data.augmentation import Sample, hide_modalities, jitter, scale_jitter, turn
from ml_backend.detector.data.pasting import paste
from ml_backend.detector.data.samples import training_sample
from ml_backend.detector.dataset import AnnotatedInstance, DatasetSpec, Tile
from ml_backend.detector.validation import check_dataset

RGB = ModalitySpec("rgb", ("r", "g"), mean=(0.0, 0.0), std=(1.0, 1.0))
DEM = ModalitySpec("dem", ("z",), mean=(0.0,), std=(1.0,), unit="m")
SPECS = (RGB, DEM)
OBJECT = AnnotatedInstance(1, [], 0, False)
REGION = AnnotatedInstance(2, [], 0, True)


def sample(size: int = 24, *, square: tuple[int, int, int, int] = (6, 6, 14, 12), level: float = 1.0) -> Sample:
    """A tile with one square (x1, y1, x2, y2) whose value is `level` in every band over a ground of 0."""
    mask = np.zeros((1, size, size), dtype=bool)
    x1, y1, x2, y2 = square
    mask[0, y1:y2, x1:x2] = True
    pixels = torch.ones(5, size, size)
    pixels[:3] = torch.from_numpy(np.where(mask, level, 0.0)).float()
    return Sample(pixels, (OBJECT,), mask)


def hidden(tile: Sample, position: int) -> Sample:
    pixels = tile.pixels.clone()
    pixels[slice(0, 2) if position == 0 else slice(2, 3)] = 0
    pixels[3 + position] = 0
    return replace(tile, pixels=pixels)


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(0.1, 4),
    high=st.floats(0.1, 4),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    seed=st.integers(0, 999),
)
def test_scale_jitter_keeps_everything_in_place(low: float, high: float, size: tuple[int, int], seed: int) -> None:
    scales = (min(low, high), max(low, high))
    before = sample()
    after = scale_jitter(before, SPECS, size, scales, np.random.default_rng(seed))
    assert after.size == size == after.masks.shape[1:]
    bands, planes = after.pixels[:3].numpy(), after.pixels[3:].numpy()
    assert np.isin(planes, (0, 1)).all()
    assert np.array_equal(planes[0], planes[1])
    assert not bands[:, planes[0] == 0].any()
    assert not after.masks[:, planes[0] == 0].any()
    assert np.allclose(bands[0], bands[2])
    # the square is bright where its mask is, but for the blurred pixels along its outline
    differs = (bands[0] > 0.5) != after.masks[0]
    assert differs.sum() <= 4 * (14 * scales[1] + 4)


def test_halving_leaves_half_a_tile_and_ground_without_data() -> None:
    after = scale_jitter(sample(), SPECS, (24, 24), (0.5, 0.5), np.random.default_rng(3))
    assert after.pixels[3].sum() == 12 * 12
    assert after.masks.sum() == pytest.approx(8 * 6 / 4, abs=3)


def test_invalid_pixels_do_not_bleed_when_resampled() -> None:
    tile = sample(level=5.0, square=(0, 0, 24, 24))
    pixels = tile.pixels.clone()
    pixels[2, :, :10] = 0
    pixels[4, :, :10] = 0
    after = scale_jitter(replace(tile, pixels=pixels), SPECS, (32, 32), (0.7, 0.7), np.random.default_rng(0)).pixels
    assert torch.allclose(after[2][after[4] > 0], torch.tensor(5.0))


def test_exempt_modalities_keep_their_values() -> None:
    config = DetectorConfig(modalities=("rgb", "dem"), radiometric_jitter=0.5, jitter_exempt=("dem",))
    before = sample()
    after = jitter(before, SPECS, config, np.random.default_rng(0))
    assert torch.equal(after.pixels[2:], before.pixels[2:])
    assert not torch.allclose(after.pixels[:2], before.pixels[:2])


def pasted(target: Sample, source: Sample) -> Sample:
    """With a generator that takes the objects there are."""
    for seed in range(20):
        after = paste(target, source, SPECS, np.random.default_rng(seed))
        if after is not target:
            return after
    return target


def test_a_pasted_object_hides_what_is_under_it() -> None:
    target, source = sample(square=(0, 0, 10, 10)), sample(square=(5, 5, 20, 20), level=3.0)
    after = pasted(target, source)
    assert [instance.id for instance in after.instances] == [1, 1]
    assert after.masks[1].sum() == 15 * 15
    assert after.masks[0].sum() == 100 - 25
    assert not (after.masks[0] & after.masks[1]).any()
    assert (after.pixels[:2, after.masks[1]] == 3).all()
    assert (after.pixels[:2, after.masks[0]] == 1).all()
    assert torch.equal(target.pixels, sample(square=(0, 0, 10, 10)).pixels), "the target itself was changed"


def test_heights_keep_their_depth_and_join_their_surroundings() -> None:
    """A pit of 4 m in ground at 100 m, pasted into ground at 7 m, ends at 3 m; colours are taken as they are."""
    source, target = sample(level=96.0), sample(square=(20, 20, 22, 22), level=7.0)
    source.pixels[:3][source.pixels[:3] == 0] = 100.0
    target.pixels[:3] = 7.0
    after = pasted(target, source)
    inside = torch.from_numpy(after.masks[1])
    assert (after.pixels[2][inside] == 3.0).all()
    assert (after.pixels[0][inside] == 96.0).all()
    assert (after.pixels[:3, ~inside] == 7.0).all()


def test_validity_never_shows_what_was_pasted() -> None:
    source, target = sample(square=(5, 5, 20, 20), level=3.0), sample(square=(0, 0, 4, 4))
    without = hidden(target, 1)
    after = pasted(without, source)
    assert len(after.instances) == 2
    assert torch.equal(after.pixels[3:], without.pixels[3:])
    assert not after.pixels[2].any()
    assert pasted(target, hidden(source, 1)) is target, "pasted without its elevation"


def test_nothing_is_pasted_where_no_modality_has_data() -> None:
    source, target = sample(square=(5, 5, 20, 20)), sample(square=(0, 0, 2, 2))
    target.pixels[:, :, 12:] = 0
    after = pasted(target, source)
    assert not after.masks[1][:, 12:].any()
    assert after.masks[1][:, :12].any()
    assert not after.pixels[:, :, 12:].any()


def test_ignored_regions_are_not_pasted_and_end_where_an_object_is_pasted() -> None:
    source = replace(sample(square=(5, 5, 20, 20)), instances=(REGION,))
    target = sample()
    assert pasted(target, source) is target
    region = replace(sample(square=(0, 0, 24, 24)), instances=(REGION,))
    after = pasted(region, sample(square=(5, 5, 20, 20)))
    assert not (after.masks[0] & after.masks[1]).any()


def test_objects_below_the_smallest_size_are_ignored() -> None:
    tile = Tile(1, "t.tif", 24, 24, None, (OBJECT,))
    assert len(training_sample(tile, sample().masks, 48).gt_instances) == 1
    smaller = training_sample(tile, sample().masks, 49)
    assert len(smaller.gt_instances) == 0
    assert len(smaller.ignored_instances) == 1


EVERYTHING = DetectorConfig(
    iterations=4,
    batch_size=3,
    modalities=("rgb", "relative_elevation"),
    anchor="rgb",
    scale_jitter=(0.5, 2.0),
    copy_paste=0.8,
    min_instance_pixels=10,
)


@pytest.fixture(scope="module")
def dataset(dataset_dir: Path) -> DatasetSpec:
    spec = read_dataset(dataset_dir)
    return spec.with_modalities(check_dataset(spec, EVERYTHING.modalities, ["train"]))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_order_change_nothing(dataset: DatasetSpec, workers: int) -> None:
    loader = DataLoader(TrainingBatches(dataset, EVERYTHING), batch_size=None, num_workers=workers)
    again = TrainingBatches(dataset, EVERYTHING)
    expected = [again[step] for step in (3, 1, 2, 0)]
    for step, batch in enumerate(loader):
        other = expected[(3, 1, 2, 0).index(step)]
        for inputs, same in zip(batch["inputs"], other["inputs"], strict=True):
            assert torch.equal(inputs, same)
        for told, same in zip(batch["data_samples"], other["data_samples"], strict=True):
            assert np.array_equal(told.gt_instances.masks.masks, same.gt_instances.masks.masks)
            assert torch.equal(told.gt_instances.bboxes, same.gt_instances.bboxes)
            assert torch.equal(told.ignored_instances.bboxes, same.ignored_instances.bboxes)


def test_copy_paste_adds_objects_and_scale_jitter_keeps_the_size(dataset: DatasetSpec) -> None:
    def objects(config: DetectorConfig) -> int:
        batches = TrainingBatches(dataset, config)
        return sum(len(told.gt_instances) for step in range(4) for told in batches[step]["data_samples"])

    plain = replace(EVERYTHING, scale_jitter=(1.0, 1.0), copy_paste=0.0)
    assert objects(replace(plain, copy_paste=1.0)) > objects(plain)
    for inputs in TrainingBatches(dataset, EVERYTHING)[0]["inputs"]:
        assert tuple(inputs.shape[1:]) == (64, 64)


def test_what_is_off_draws_nothing_from_the_generator(dataset: DatasetSpec) -> None:
    """The usual training sees exactly what hiding, jitter and symmetry make of a tile."""
    config = replace(EVERYTHING, scale_jitter=(1.0, 1.0), copy_paste=0.0)
    batches = TrainingBatches(dataset, config)
    rng = np.random.default_rng((config.seed, 4))
    chip = hide_modalities(read_tile(dataset, batches.modalities, batches.tiles[batches.order[4]]), config, rng)
    pixels, _ = network_input(chip, batches.modalities)
    plain = turn(jitter(Sample(pixels, (), np.zeros((0, 64, 64), bool)), batches.modalities, config, rng), rng)
    assert torch.equal(batches[1]["inputs"][1], plain.pixels)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"scale_jitter": [2.0, 0.5]}, "scale_jitter"),
        ({"scale_jitter": [1.0]}, "scale_jitter"),
        ({"scale_jitter": [0.0, 1.0]}, "scale_jitter"),
        ({"copy_paste": 1.5}, "copy_paste"),
        ({"min_instance_pixels": 0}, "min_instance_pixels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        DetectorConfig.from_json(changes)


def test_an_exempt_modality_must_exist(dataset_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"jitter_exempt.*'radar'"):
        DetectorConfig(jitter_exempt=("radar",)).resolve(read_dataset(dataset_dir))
