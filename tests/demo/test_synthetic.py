"""Generated datasets: the same every time, readable by the detector, with the hardness that was asked for."""

import hashlib
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import rasterio
from django.core.management import CommandError, call_command

from demo.landforms import SLUMP
from demo.recipe import Recipe
from demo.synthetic import generate_dataset, make_split
from ml_backend.detector.dataset import read_dataset
from ml_backend.detector.validation import check_dataset

SMALL = {"train": 6, "val": 2, "test": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("synthetic") / "data"
    generate_dataset(target, Recipe(tiles=SMALL, missing_dem=0.3, seed=2))
    return target


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(f.relative_to(folder)).encode() + f.read_bytes() for f in files)).hexdigest()


def test_the_same_recipe_gives_the_same_files_and_another_seed_others(folder, tmp_path):
    generate_dataset(tmp_path / "again", Recipe(tiles=SMALL, missing_dem=0.3, seed=2))
    generate_dataset(tmp_path / "other", Recipe(tiles=SMALL, missing_dem=0.3, seed=3))
    assert digest(tmp_path / "again") == digest(folder) != digest(tmp_path / "other")


def test_the_detector_takes_it_as_it_is(folder):
    dataset = read_dataset(folder)
    specs = check_dataset(dataset, ("rgb", "ndvi", "relative_elevation"), ("train", "val", "test"))
    assert [len(dataset.tiles(split)) for split in ("train", "val", "test")] == [6, 2, 4]
    assert all(spec.mean and min(spec.std) > 0 for spec in specs)
    assert dataset.anchor == "rgb"
    lacking = [t for t in dataset.tiles("train") if dataset.chip_file("relative_elevation", t) is None]
    assert len(lacking) == 2


def test_splits_are_far_apart(folder):
    spans = {}
    for split in SMALL:
        bounds = []
        for file in (folder / "chips" / "rgb").glob(f"{split}-*.tif"):
            with rasterio.open(file) as chip:
                bounds.append(chip.bounds)
        spans[split] = min(b.bottom for b in bounds), max(b.top for b in bounds)
    low, middle, high = sorted(spans.values())
    assert middle[0] - low[1] > 10_000
    assert high[0] - middle[1] > 10_000


def test_of_a_split_slump_colour_shows_the_lower_half_and_elevation_the_upper():
    scene = make_split(Recipe(tiles=SMALL | {"train": 16}, signal_split=1.0, missing_dem=0), "train")
    plain = make_split(Recipe(tiles=SMALL | {"train": 16}, signal_split=0.0, missing_dem=0), "train")
    ndvi, plain_ndvi = scene.arrays["ndvi"][0], plain.arrays["ndvi"][0]
    greener = 0
    slumps = [form for form in scene.forms if form.kind == SLUMP]
    for form in slumps:
        assert form.is_split
        step = 0.3 * form.length
        column, row = round(form.column - step * form.downslope[0]), round(form.row - step * form.downslope[1])
        greener += ndvi[row, column] > plain_ndvi[row, column] + 0.1
    assert greener > 0.7 * len(slumps) > 5


def test_shifts_change_the_test_split_alone():
    usual, other = Recipe(tiles=SMALL), Recipe(tiles=SMALL, illumination_shift=1, season_shift=1, dem_shift=1)
    for split in ("train", "val"):
        same, shifted = make_split(usual, split), make_split(other, split)
        assert all(np.array_equal(same.arrays[name], shifted.arrays[name]) for name in usual.modalities)
    same, shifted = make_split(usual, "test"), make_split(other, "test")
    assert shifted.arrays["rgb"].mean() < same.arrays["rgb"].mean()
    assert shifted.arrays["ndvi"].mean() < same.arrays["ndvi"].mean() - 0.05
    rough = [np.diff(scene.arrays["relative_elevation"][0]).std() for scene in (same, shifted)]
    assert rough[1] > rough[0] + 0.5
    assert [form.outline for form in same.forms] == [form.outline for form in shifted.forms]


def test_a_modality_of_noise_keeps_its_scale_and_loses_its_answer():
    real = make_split(Recipe(tiles=SMALL), "train").arrays
    noisy = make_split(Recipe(tiles=SMALL, noise="relative_elevation"), "train").arrays
    assert np.array_equal(real["rgb"], noisy["rgb"])
    before, after = real["relative_elevation"], noisy["relative_elevation"]
    assert after.mean() == pytest.approx(before.mean(), abs=0.2)
    assert after.std() == pytest.approx(before.std(), rel=0.05)
    assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.05


def test_the_command_writes_and_counts(tmp_path):
    out = StringIO()
    words = ["--train", "4", "--val", "1", "--test", "2", "--tile-size", "128", "--modalities", "rgb", "dem", "--json"]
    call_command("generate_dataset", "--out", str(tmp_path / "d"), *words, stdout=out)
    result = json.loads(out.getvalue())
    assert [row["tiles"] for row in result["splits"]] == [4, 1, 2]
    with rasterio.open(next((tmp_path / "d" / "chips" / "dem").glob("*.tif"))) as chip:
        assert chip.shape == (128, 128)
        assert chip.res == (2.5, 2.5)
    with pytest.raises(CommandError, match="exists already"):
        call_command("generate_dataset", "--out", str(tmp_path / "d"), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--modalities", "rgb", "radar"], "no modality `radar`"),
        (["--modalities", "dem"], "lack the anchor"),
        (["--noise", "nir"], "cannot be noise"),
        (["--missing-dem", "1.5"], "not a share"),
        (["--dem-shift", "-1"], "too little or too much"),
        (["--val", "0"], "val split"),
        (["--tile-size", "7"], "Tiles of 7 pixels"),
        (["--seed", "-1"], "negative"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path, words, complaint):
    with pytest.raises(CommandError, match=complaint):
        call_command("generate_dataset", "--out", str(tmp_path / "d"), *words)
    assert not list(tmp_path.iterdir())
