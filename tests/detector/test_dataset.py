"""Bad datasets are refused before training, in one sentence that names the file and the remedy."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from torch import nn

from ml_backend.detector import (
    ConfigError,
    DatasetError,
    DatasetSpec,
    DetectorConfig,
    DetectorError,
    ModalitySpec,
    read_dataset,
    train,
)
from ml_backend.detector.chips import read_tile
from ml_backend.detector.config import PARTS, STACKED
from ml_backend.detector.dataset import MODALITY_NAME
from ml_backend.detector.validation import check_dataset
from tests.detector.files import edit_json

BOTH = ("rgb", "relative_elevation")


def edit_chip(file: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with rasterio.open(file) as raster:
        profile, array = raster.profile, change(raster.read())
    profile.update(count=array.shape[0], height=array.shape[1], width=array.shape[2])
    with rasterio.open(file, "w", **profile) as raster:
        raster.write(array)


def spoil_pixel(array: np.ndarray, value: float) -> np.ndarray:
    array[:, 7, 9] = value
    return array


def first_annotation(**changes: Any) -> Callable[[Path], None]:
    return lambda root: edit_json(root / "annotations/train.json", lambda d: d["annotations"][0].update(changes))


def train_json(change: Callable[[Any], object]) -> Callable[[Path], None]:
    return lambda root: edit_json(root / "annotations/train.json", change)


def dataset_json(change: Callable[[Any], object]) -> Callable[[Path], None]:
    return lambda root: edit_json(root / "dataset.json", change)


def modality_folder_missing(root: Path) -> None:
    (root / "chips/relative_elevation").rename(root / "chips/elsewhere")


def no_chip_at_all(root: Path) -> None:
    for name in BOTH:
        (root / f"chips/{name}/train_0001.tif").unlink()


def chip_is_virtual(root: Path) -> None:
    """The chip is moved out of the dataset, and a VRT of its name leads there."""
    chip = root / "chips/rgb/train_0001.tif"
    with rasterio.open(chip) as raster:
        width, height, count = raster.width, raster.height, raster.count
    moved = chip.rename(root / "moved.tif")
    bands = "".join(
        f'<VRTRasterBand dataType="Float32" band="{n}"><SimpleSource><SourceFilename>{moved}</SourceFilename>'
        f"<SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"
        for n in range(1, count + 1)
    )
    chip.write_text(f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{bands}</VRTDataset>')


def folder_instead_of(name: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        (root / name).unlink()
        (root / name).mkdir()

    return spoil


def claims_to_be_huge(root: Path) -> None:
    """A file of some hundred bytes, a hundred gigabytes when read."""
    size = {"width": 60_000, "height": 60_000, "count": 3, "dtype": "float32"}
    options = {"driver": "GTiff", "sparse_ok": True, "tiled": True, "compress": "deflate"}
    rasterio.open(root / "chips/rgb/train_0001.tif", "w", **options, **size).close()


def complex_chip(root: Path) -> None:
    with rasterio.open(
        root / "chips/rgb/train_0001.tif", "w", driver="GTiff", width=64, height=64, count=3, dtype="complex64"
    ) as raster:
        raster.write(np.ones((3, 64, 64), dtype=np.complex64))


def rle(counts: Any) -> Callable[[Path], None]:
    return first_annotation(segmentation={"size": [64, 64], "counts": counts})


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a chip is a virtual raster": (chip_is_virtual, "cannot be read"),
    "an image lies outside": (
        train_json(lambda d: d["images"][0].update(file_name="../../../secret.tif")),
        "leads out of the dataset",
    ),
    "an image is absolute": (train_json(lambda d: d["images"][0].update(file_name="/x.tif")), "leads out of"),
    "an image has no name": (train_json(lambda d: d["images"][0].pop("file_name")), r"images\[0\] lacks 'file_name'"),
    "an annotation is a number": (train_json(lambda d: d["annotations"].insert(0, 3)), r"annotations\[0\] is not a"),
    "annotations are a list": (lambda root: (root / "annotations/train.json").write_text("[]"), "is not COCO"),
    "dataset.json is a list": (lambda root: (root / "dataset.json").write_text("[]"), "is no JSON object"),
    "no dataset.json": (lambda r: (r / "dataset.json").unlink(), r"dataset\.json is missing"),
    "dataset.json is no JSON": (lambda r: (r / "dataset.json").write_text("{"), r"dataset\.json is not valid JSON"),
    "no classes": (dataset_json(lambda d: d.pop("classes")), "'classes' must list at least one"),
    "modality twice": (dataset_json(lambda d: d["modalities"].append(d["modalities"][0])), "each once"),
    "bad modality name": (dataset_json(lambda d: d["modalities"][0].update(name="a/b")), "'a/b' is unusable"),
    "mean of wrong length": (dataset_json(lambda d: d["modalities"][0].update(mean=[1], std=[1])), "3 bands"),
    "two anchors": (dataset_json(lambda d: [m.update(anchor=True) for m in d["modalities"]]), "mark only one"),
    "no annotation file": (lambda r: (r / "annotations/train.json").unlink(), r"train\.json is missing"),
    "not COCO": (train_json(lambda d: d.pop("images")), "is not COCO"),
    "modality folder missing": (modality_folder_missing, "chips/relative_elevation is missing"),
    "no chip at all": (no_chip_at_all, r"tile 'train_0001\.tif' has no chip"),
    "chip of another size": (
        lambda r: edit_chip(r / "chips/rgb/train_0001.tif", lambda a: a[:, :32]),
        r"rgb/train_0001\.tif is 64 x 32 pixels.*64 x 64",
    ),
    "chip with other bands": (
        lambda r: edit_chip(r / "chips/rgb/train_0001.tif", lambda a: a[:2]),
        r"rgb/train_0001\.tif has 2 bands.*declares 3",
    ),
    "truncated chip": (
        lambda r: (r / "chips/rgb/train_0001.tif").write_bytes(b"II*\0broken"),
        r"rgb/train_0001\.tif cannot be read",
    ),
    "empty polygon": (first_annotation(segmentation=[]), r"annotation 1 on 'train_0000\.tif' is empty"),
    "empty RLE": (first_annotation(segmentation={"size": [64, 64], "counts": [4096]}), "is empty"),
    "RLE of another size": (first_annotation(segmentation={"size": [9, 9], "counts": [81]}), "RLE of size"),
    "two points": (first_annotation(segmentation=[[1, 1, 5, 5]]), "at least three points"),
    "bow tie": (first_annotation(segmentation=[[0, 0, 9, 9, 9, 0, 0, 9]]), "not a valid polygon.*Self-intersection"),
    "NaN corner": (first_annotation(segmentation=[[0, 0, 9, float("nan"), 9, 0]]), "not a number"),
    "outside": (first_annotation(segmentation=[[90, 90, 99, 90, 99, 99]]), "lies outside its tile"),
    "undeclared class": (first_annotation(category_id=2), r"annotation 1 has category_id 2.*classes 1 to 1"),
    "unknown image": (first_annotation(image_id=99), "belongs to image 99, which is not listed"),
    "image listed twice": (train_json(lambda d: d["images"].append({**d["images"][0], "id": 77})), "twice"),
    "image id twice": (train_json(lambda d: d["images"][1].update(id=1)), "image id 1 twice"),
    "no annotations": (train_json(lambda d: d["annotations"].clear()), "holds no annotations to learn from"),
    "image id is text": (
        train_json(lambda d: d["images"][0].update(id="a")),
        r"images\[0\] has 'id' = 'a': write a whole",
    ),
    "image id is a list": (train_json(lambda d: d["images"][0].update(id=[1])), r"images\[0\] has 'id'"),
    "class is text": (first_annotation(category_id="RTS"), r"annotations\[0\] has 'category_id' = 'RTS': write"),
    "class is true": (first_annotation(category_id=True), "'category_id' = True"),
    "file name is a number": (train_json(lambda d: d["images"][0].update(file_name=7)), "'file_name' = 7: write text"),
    "file name is empty": (train_json(lambda d: d["images"][0].update(file_name="")), "names no file"),
    "file name with NUL": (train_json(lambda d: d["images"][0].update(file_name="a\0b.tif")), "names no file"),
    "image twice by suffix": (
        train_json(lambda d: d["images"].append({**d["images"][0], "id": 77, "file_name": "train_0000.png"})),
        r"lists image 'train_0000\.tif' twice",
    ),
    "image in two splits": (
        lambda r: edit_json(r / "annotations/val.json", lambda d: d["images"][0].update(file_name="train_0000.tif")),
        r"val\.json: tile 'train_0000\.tif' is in .*train\.json, too",
    ),
    "image without width": (train_json(lambda d: d["images"][0].update(width=0)), "declared as 0 x 64 pixels"),
    "image declared huge": (train_json(lambda d: d["images"][0].update(width=10**9)), "1000000000 x 64 pixels"),
    "annotation id twice": (train_json(lambda d: d["annotations"][1].update(id=1)), "annotation id 1 twice"),
    "category of another name": (
        train_json(lambda d: d.update(categories=[{"id": 1, "name": "lake"}])),
        "category 1 is named 'lake', but class 1 of dataset.json is 'RTS'",
    ),
    "a key twice": (
        lambda r: (r / "dataset.json").write_text((r / "dataset.json").read_text().replace("{", '{"name": 1, ', 1)),
        "holds the key 'name' twice",
    ),
    "JSON without end": (lambda r: (r / "dataset.json").write_text("[" * 100_000), "is not valid JSON"),
    "JSON in Latin-1": (lambda r: (r / "dataset.json").write_bytes(b'{"name": "\xe9"}'), "is not valid JSON"),
    "dataset.json is a folder": (folder_instead_of("dataset.json"), r"dataset\.json cannot be read"),
    "classes are text": (dataset_json(lambda d: d.update(classes="RTS")), "'classes' must list"),
    "bands are text": (dataset_json(lambda d: d["modalities"][0].update(bands="rgb")), "declares no bands"),
    "a modality is text": (dataset_json(lambda d: d.update(modalities=["rgb"])), "a modality is no JSON object"),
    "modalities are an object": (dataset_json(lambda d: d.update(modalities={"rgb": 1})), "at least one modality"),
    "mean is NaN": (dataset_json(lambda d: d["modalities"][1].update(mean=[float("nan")], std=[1])), "'mean' and posi"),
    "std is zero": (dataset_json(lambda d: d["modalities"][1].update(mean=[0], std=[0])), "'mean' and positive"),
    "std is text": (dataset_json(lambda d: d["modalities"][1].update(mean=["0"], std=["1"])), "'mean' and positive"),
    "mean without std": (dataset_json(lambda d: d["modalities"][1].update(mean=[0])), "'mean' and positive"),
    "range of one": (dataset_json(lambda d: d["modalities"][1].update(range=[0])), "'range' of modality"),
    "nodata is text": (dataset_json(lambda d: d["modalities"][1].update(nodata="none")), "'nodata' of modality"),
    "a chip is a folder": (folder_instead_of("chips/rgb/train_0001.tif"), r"train_0001\.tif is a folder"),
    "a chip claims to be huge": (claims_to_be_huge, r"rgb/train_0001\.tif is 60000 x 60000 pixels, but its tile"),
    "a chip of complex numbers": (complex_chip, "holds complex numbers"),
    "an empty file": (lambda r: (r / "chips/rgb/train_0001.tif").write_bytes(b""), "cannot be read"),
    "RLE too short": (rle([10, 5]), "is an RLE of 15 pixels on a tile of 4096"),
    "RLE negative": (rle([5000, -904]), "unreadable RLE"),
    "RLE of fractions": (rle([96.5, 3999.5]), "unreadable RLE"),
    "RLE huge": (rle([10**30, 5]), "is an RLE of"),
    "RLE text too short": (rle("zz"), "RLE"),
    "RLE text cut off": (rle("o"), "unreadable RLE"),
    "RLE text of others": (rle("\u1234"), "unreadable RLE"),
    "RLE of nothing": (rle(None), "unreadable RLE"),
    "outline is text": (first_annotation(segmentation=["0,0,1,1,2,2"]), "at least three points"),
    "outline is a number": (first_annotation(segmentation=4), "is empty"),
    "corner is text": (first_annotation(segmentation=[["0", 0, 9, 0, 9, 9]]), "not a number"),
    "corner is far away": (first_annotation(segmentation=[[0, 0, 1e300, 0, 9, 9]]), "not a number of pixels"),
    "only ignored": (train_json(lambda d: [a.update(ignore=1) for a in d["annotations"]]), "holds no annotations"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_training_refuses_before_it_starts(case: str, own_dataset_dir: Path, tmp_path: Path) -> None:
    spoil, message = SPOILED[case]
    spoil(own_dataset_dir)
    told: list[str] = []
    with pytest.raises(DatasetError, match=message) as refusal:
        train(own_dataset_dir, tmp_path / "out", DetectorConfig(), progress=lambda _, text: told.append(text))
    assert not any(text.startswith("iter") for text in told), "training started"
    assert str(own_dataset_dir) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_unknown_modality_is_refused(own_dataset_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"asks for modality 'ndvi'.*declares rgb, relative_elevation"):
        train(own_dataset_dir, tmp_path / "out", DetectorConfig(modalities=("rgb", "ndvi")))


def test_an_empty_validation_split_is_allowed(own_dataset_dir: Path) -> None:
    edit_json(own_dataset_dir / "annotations/val.json", lambda d: d.update(images=[], annotations=[]))
    dataset = read_dataset(own_dataset_dir)
    assert len(check_dataset(dataset, BOTH, ["train", "val"])) == 2
    assert dataset.usable_tiles("val") == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["dataset.json", "annotations/train.json", "chips/rgb/train_0001.tif"])
def test_files_that_may_not_be_read_are_named(name: str, own_dataset_dir: Path) -> None:
    (own_dataset_dir / name).chmod(0)
    with pytest.raises(DatasetError, match=f"{name} cannot be read .Permission denied"):
        check_dataset(read_dataset(own_dataset_dir), BOTH, ["train"])


def test_a_modality_without_a_single_training_chip_is_refused(own_dataset_dir: Path, tmp_path: Path) -> None:
    for file in (own_dataset_dir / "chips/relative_elevation").glob("train_*.tif"):
        file.unlink()
    edit_json(own_dataset_dir / "dataset.json", lambda d: d["modalities"][1].update(mean=[0], std=[1]))
    with pytest.raises(
        DatasetError, match=r"chips/relative_elevation holds no chip of a tile of .*train\.json"
    ) as told:
        train(own_dataset_dir, tmp_path / "out", DetectorConfig(iterations=1), device="cpu")
    assert "nothing can be learnt of modality 'relative_elevation'" in str(told.value)
    train(own_dataset_dir, tmp_path / "out", DetectorConfig(iterations=1, modalities=("rgb",)), device="cpu")


@pytest.mark.parametrize("suffix", [".TIF", ".TIFF", ".tiff"])
def test_a_chip_is_found_whatever_the_case_of_its_suffix(suffix: str, own_dataset_dir: Path) -> None:
    chip = own_dataset_dir / "chips/rgb/train_0001.tif"
    renamed = chip.rename(chip.with_suffix(suffix))
    dataset = read_dataset(own_dataset_dir)
    assert dataset.chip_file("rgb", dataset.tiles("train")[1]) == renamed


ATTRIBUTES = [name for name in dir(nn.ModuleDict()) if MODALITY_NAME.fullmatch(name)]


@pytest.mark.parametrize("name", [*ATTRIBUTES, *PARTS, STACKED])
def test_a_modality_may_not_be_called_like_a_part_of_the_network(name: str) -> None:
    modalities = tuple(ModalitySpec(n, ("band",)) for n in ("rgb", name))
    dataset = DatasetSpec(Path("data"), "d", "1", ("RTS",), modalities, "rgb")
    with pytest.raises(ConfigError, match=f"json declares a modality '{name}', but .*: rename the modality"):
        DetectorConfig().resolve(dataset)
    assert DetectorConfig(modalities=("rgb",)).resolve(dataset).modalities == ("rgb",), "it is not used"


@pytest.mark.parametrize("name", ["rgb", "dem", "ndvi", "0", "training-data", "neck2", "normal", "sar_vv"])
def test_ordinary_names_of_modalities_are_taken(name: str) -> None:
    dataset = DatasetSpec(Path("data"), "d", "1", ("RTS",), (ModalitySpec(name, ("band",)),), name)
    assert DetectorConfig().resolve(dataset).anchor == name


def test_a_name_with_dots_is_no_suffix(own_dataset_dir: Path) -> None:
    for folder in BOTH:
        (own_dataset_dir / f"chips/{folder}/train_0000.tif").rename(own_dataset_dir / f"chips/{folder}/c001.r002.tif")
        (own_dataset_dir / f"chips/{folder}/train_0001.tif").rename(own_dataset_dir / f"chips/{folder}/c001.r003.tif")
    names = iter(["c001.r002", "c001.r003"])
    edit_json(
        own_dataset_dir / "annotations/train.json",
        lambda d: [image.update(file_name=next(names)) for image in d["images"][:2]],
    )
    dataset = read_dataset(own_dataset_dir)
    files = [dataset.chip_file("rgb", tile) for tile in dataset.tiles("train")]
    assert [file.name for file in files if file][:2] == ["c001.r002.tif", "c001.r003.tif"]


def test_statistics_are_those_of_valid_training_pixels(dataset_dir: Path) -> None:
    dataset = read_dataset(dataset_dir)
    specs = check_dataset(dataset, BOTH, ["train"])
    for spec in specs:
        pixels = []
        for file in sorted((dataset_dir / "chips" / spec.name).glob("train_*.tif")):
            with rasterio.open(file) as raster:
                array = raster.read().reshape(len(spec.bands), -1).astype(float)
            pixels.append(array[:, np.isfinite(array).all(axis=0)])
        together = np.concatenate(pixels, axis=1)
        np.testing.assert_allclose(spec.mean, together.mean(axis=1), rtol=1e-4)
        np.testing.assert_allclose(spec.std, together.std(axis=1), rtol=1e-3)


def test_tiles_that_lack_the_only_modality_used_are_left_out(own_dataset_dir: Path) -> None:
    """A DEM is often missing: pretraining on it must do with the tiles that have one."""
    (own_dataset_dir / "chips/relative_elevation/train_0001.tif").unlink()
    dataset = read_dataset(own_dataset_dir)
    specs = check_dataset(dataset, ("relative_elevation",), ["train"])
    alone = dataset.with_modalities(specs)
    assert {t.file_name for t in dataset.tiles("train")} - {t.file_name for t in alone.usable_tiles("train")} == {
        "train_0001.tif"
    }
    assert len(dataset.usable_tiles("train")) == len(dataset.tiles("train"))


def test_no_annotated_tile_with_the_only_modality_used_is_refused(own_dataset_dir: Path) -> None:
    for file in (own_dataset_dir / "chips/relative_elevation").glob("train_*.tif"):
        file.unlink()
    with pytest.raises(DatasetError, match="annotations to learn from on tiles with relative_elevation"):
        check_dataset(read_dataset(own_dataset_dir), ("relative_elevation",), ["train"])


def test_declared_statistics_are_kept(own_dataset_dir: Path) -> None:
    edit_json(own_dataset_dir / "dataset.json", lambda d: d["modalities"][1].update(mean=[1.5], std=[4.0]))
    _, elevation = check_dataset(read_dataset(own_dataset_dir), BOTH, ["train"])
    assert (elevation.mean, elevation.std) == ((1.5,), (4.0,))


def test_a_tile_without_the_only_modality_used_is_left_out_but_stays_for_several(own_dataset_dir: Path) -> None:
    (own_dataset_dir / "chips/relative_elevation/train_0001.tif").unlink()
    dataset = read_dataset(own_dataset_dir)
    for used, expected in ((("relative_elevation",), [0, 2]), (BOTH, [0, 1, 2])):
        specs = check_dataset(dataset, used, ["train"])
        tiles = dataset.with_modalities(specs).usable_tiles("train")
        assert [tile.file_name for tile in tiles] == [f"train_000{number}.tif" for number in expected]


def test_declared_nodata_and_nan_are_invalid(own_dataset_dir: Path) -> None:
    file = own_dataset_dir / "chips/relative_elevation/train_0000.tif"
    edit_chip(file, lambda a: spoil_pixel(a, -9999.0))
    edit_chip(own_dataset_dir / "chips/rgb/train_0000.tif", lambda a: spoil_pixel(a, np.nan))
    dataset = read_dataset(own_dataset_dir)
    chip = read_tile(dataset, dataset.modalities, dataset.tiles("train")[0])
    for name in BOTH:
        assert not chip.valid[name][7, 9]
        assert chip.valid[name][40, 40]


def test_an_ordinary_rgb_coco_dataset_is_the_special_case(own_dataset_dir: Path, tmp_path: Path) -> None:
    """PNG and JPEG files, one modality, polygons; no validation split."""
    folder = own_dataset_dir / "chips/rgb"
    for position, file in enumerate(sorted(folder.glob("*.tif"))):
        with rasterio.open(file) as raster:
            picture = Image.fromarray((raster.read() * 255).astype(np.uint8).transpose(1, 2, 0))
        picture.save(file.with_suffix(".jpg" if position % 2 else ".png"))
        file.unlink()
    rgb = {"name": "rgb", "bands": ["red", "green", "blue"], "range": [0, 255]}
    edit_json(own_dataset_dir / "dataset.json", lambda d: d.update(modalities=[rgb]))
    square = [[10, 10, 40, 10, 40, 40, 10, 40]]
    edit_json(
        own_dataset_dir / "annotations/train.json", lambda d: [a.update(segmentation=square) for a in d["annotations"]]
    )
    (own_dataset_dir / "annotations/val.json").unlink()
    result = train(own_dataset_dir, tmp_path / "out", DetectorConfig(iterations=1, batch_size=2), device="cpu")
    assert result.metrics == {}
    assert (result.checkpoint / "model.safetensors").is_file()
