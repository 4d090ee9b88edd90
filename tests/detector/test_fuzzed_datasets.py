"""Whatever stands in a dataset directory: it is read, or refused in one sentence; nothing else ever comes out."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from ml_backend.detector import DatasetError, read_dataset
from ml_backend.detector.chips import read_chip
from ml_backend.detector.data import training_sample
from ml_backend.detector.masks import encode_rle, rle_counts, segmentation_mask
from ml_backend.detector.validation import check_dataset

NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.sampled_from([0, 1, 2, -1, 64, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["rgb", "../x", "/", ".", "train_0001.tif", "\0", "\ud800", "é"]),
    st.lists(st.one_of(st.integers(-5, 70), st.floats(), st.text(max_size=2), st.none()), max_size=8),
    st.lists(st.lists(st.floats(-100, 200), max_size=10), max_size=3),
    st.dictionaries(st.sampled_from(["size", "counts", "id", "name"]), st.integers(-1, 70), max_size=3),
    st.fixed_dictionaries(
        {"size": st.just([64, 64]), "counts": st.one_of(st.text(max_size=6), st.lists(st.integers(-9, 4096)))}
    ),
)
FILES = ("dataset.json", "annotations/train.json")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a JSON document."""
    found = [path]
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*path, key))
    return found


def with_change(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def why_refused(folder: Path) -> str | None:
    """Prepare a dataset for training as far as its samples; the refusal, if it is one."""
    try:
        dataset = read_dataset(folder)
        specs = check_dataset(dataset, [modality.name for modality in dataset.modalities], ["train"])
        for tile in dataset.usable_tiles("train"):
            masks = [segmentation_mask(i.segmentation, tile.height, tile.width) for i in tile.instances]
            training_sample(tile, np.array(masks, dtype=bool).reshape(-1, tile.height, tile.width))
    except DatasetError as refusal:
        return str(refusal)
    assert all(np.isfinite(spec.mean + spec.std).all() for spec in specs)
    return None


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_anywhere_is_read_or_refused_in_a_sentence(own_dataset_dir: Path, data: st.DataObject) -> None:
    file = own_dataset_dir / data.draw(st.sampled_from(FILES))
    before = file.read_text()
    document = json.loads(before)
    path = data.draw(st.sampled_from(places(document)))
    file.write_text(json.dumps(with_change(document, path, data.draw(NASTY))))
    try:
        refusal = why_refused(own_dataset_dir)
    finally:
        file.write_text(before)
    assert refusal is None or (str(own_dataset_dir) in refusal and "\n" not in refusal)


@pytest.mark.parametrize("size", ["\n", "\u2028", "a" * 100_000, ["\x1b[2J"]])
def test_values_quoted_in_a_refusal_do_not_break_its_line(own_dataset_dir: Path, size: Any) -> None:
    file = own_dataset_dir / "annotations/train.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["segmentation"] = {"size": size, "counts": "x"}
    file.write_text(json.dumps(document))
    refusal = why_refused(own_dataset_dir)
    assert refusal
    assert refusal.isprintable()
    assert len(refusal) < 2100
    assert str(file) in refusal
    assert refusal.endswith("correct it or remove the annotation.")


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(start=st.integers(0, 3000), junk=st.binary(min_size=1, max_size=40), cut=st.booleans())
def test_a_damaged_chip_is_read_or_refused_in_a_sentence(
    own_dataset_dir: Path, start: int, junk: bytes, cut: bool
) -> None:
    file = own_dataset_dir / "chips/rgb/train_0001.tif"
    before = file.read_bytes()
    file.write_bytes(before[:start] + junk + (b"" if cut else before[start + len(junk) :]))
    try:
        refusal = why_refused(own_dataset_dir)
    finally:
        file.write_bytes(before)
    assert refusal is None or (str(file) in refusal and "\n" not in refusal)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(kept=st.floats(0.05, 0.95))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_that_ends_early_is_refused(own_dataset_dir: Path, suffix: str, kept: float) -> None:
    """What is missing must not be taken from the memory's earlier contents."""
    chip = own_dataset_dir / "chips/rgb/train_0001.tif"
    file = own_dataset_dir.with_name(f"cut{suffix}")
    with rasterio.open(chip) as raster:
        Image.fromarray((raster.read() * 255).astype(np.uint8).transpose(1, 2, 0)).save(file)
    whole = file.read_bytes()
    rgb = read_dataset(own_dataset_dir).modality("rgb")
    read_chip(file, rgb)
    file.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(DatasetError, match=f"cut{suffix} cannot be read"):
        read_chip(file, rgb)


@settings(max_examples=150, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 99))
@example(rows=40, columns=1, share=1.0, seed=0)
def test_run_lengths_are_those_of_pycocotools(rows: int, columns: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    rle = encode_rle(mask)
    runs = rle_counts(rle["counts"].decode())
    assert sum(runs) == mask.size
    again = coco_mask.decode(coco_mask.frPyObjects({"size": [rows, columns], "counts": runs}, rows, columns))
    assert np.array_equal(again, mask)


@given(text=st.text(max_size=30))
def test_run_lengths_of_any_text_are_whole_numbers_or_refused(text: str) -> None:
    try:
        runs = rle_counts(text)
    except ValueError:
        return
    assert all(run >= 0 for run in runs)


def test_long_run_lengths_survive_compression() -> None:
    runs = [0, 70_000, 5, 3, 1_000_000, 1, 2, 99]
    total = sum(runs)
    rle = coco_mask.frPyObjects({"size": [1, total], "counts": runs}, 1, total)
    assert rle_counts(rle["counts"].decode()) == runs


def test_an_unused_box_may_hold_anything(own_dataset_dir: Path) -> None:
    """Masks are the truth: boxes are made from them."""
    file = own_dataset_dir / "annotations/train.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["bbox"] = [float("nan")] * 4
    file.write_text(json.dumps(document))
    (spec,) = check_dataset(read_dataset(own_dataset_dir), ["rgb"], ["train"])
    assert spec.mean == pytest.approx(spec.mean)
