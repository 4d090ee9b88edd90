"""Others' labelled data come in by one command: COCO, LabelMe, VIA, numpy archives."""

import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ml_backend.detector import ChipInput, DatasetError, read_dataset
from ml_backend.detector.chips import read_tile
from ml_backend.detector.commands import main
from ml_backend.detector.dataset import DatasetSpec, Tile
from ml_backend.detector.importing.stacks import read_archive, stack
from ml_backend.detector.masks import segmentation_mask

SQUARE = [4.0, 4.0, 20.0, 4.0, 20.0, 12.0, 4.0, 12.0]
POINTS = [[4, 4], [20, 4], [20, 12], [4, 12]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a few pictures of 32 x 24 pixels."""
    for name in ("train/a.png", "train/b.png", "val/a.png"):
        file = tmp_path / "source/images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(1, 255, (24, 32, 3), dtype=np.uint8)).save(file)
    return tmp_path / "source"


def bring_in(source: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> tuple[DatasetSpec, dict[str, Any]]:
    out = source.parent / "out"
    assert main(["import-dataset", str(source), "--out", str(out), "--json", *options]) == 0
    return read_dataset(out), json.loads(capsys.readouterr().out)


def tiles_of(dataset: DatasetSpec) -> list[Tile]:
    return [tile for split in dataset.splits for tile in dataset.tiles(split)]


def test_a_coco_folder_keeps_its_splits_classes_and_images(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "annotations").mkdir()
    for split in ("train", "val"):
        images = [{"id": 7, "file_name": "a.png", "width": 32, "height": 24}]
        entries = [
            {"id": 1, "image_id": 7, "category_id": 18, "segmentation": [SQUARE]},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [1, 1, 4, 4]},
        ]
        if split == "train":
            images += [{"id": 8, "file_name": "b.png"}, {"id": 9, "file_name": "gone.png"}]
            entries.append({"id": 3, "image_id": 8, "category_id": 99, "segmentation": [SQUARE]})
        data = {
            "images": images,
            "annotations": entries,
            "categories": [{"id": 18, "name": "RTS"}, {"id": 3, "name": "pond"}],
        }
        (source / f"annotations/instances_{split}2017.json").write_text(json.dumps(data))
    dataset, told = bring_in(source, capsys=capsys)
    assert (told["format"], told["tiles"], told["objects"], told["problems"]) == ("coco", 2, 4, {})
    assert len(told["left_out"]) == 2, "what cannot be read makes no statement about its tile"
    assert dataset.splits == ("train", "val")
    assert dataset.classes == ("RTS", "pond")
    (train,), (val,) = dataset.tiles("train"), dataset.tiles("val")
    assert [i.ignored for i in train.instances] == [False, True], "a box alone says nothing of an outline"
    chips = [read_tile(dataset, dataset.modalities, tile).arrays["rgb"] for tile in (train, val)]
    for chip, name in zip(chips, ("train", "val"), strict=True):
        picture = np.asarray(Image.open(source / f"images/{name}/a.png"))
        assert np.array_equal(chip, np.moveaxis(picture, 2, 0))


def coco(source: Path, images: list[Any], image_ids: list[Any]) -> None:
    entries = [
        {"id": n, "image_id": image, "category_id": 1, "segmentation": [SQUARE]} for n, image in enumerate(image_ids)
    ]
    data = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "RTS"}]}
    (source / "labels.json").write_text(json.dumps(data))


def test_an_image_that_is_not_the_one_that_was_labelled_is_left_out(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (32, 24), 7).save(source / "images/grey.png")
    images = [
        {"id": 1, "file_name": "train/a.png", "width": 32, "height": 24},
        {"id": 2, "file_name": "b.png", "width": 24, "height": 32},  # labelled before it was turned
        {"id": 3, "file_name": "grey.png"},
    ]
    coco(source, images, [1, 2, 3])
    _, told = bring_in(source, "--val", "0", "--test", "0", capsys=capsys)
    assert (told["tiles"], told["objects"], told["problems"]) == (1, 1, {})
    assert "24 x 32 were labelled" in told["left_out"][0]
    assert "1 bands, others 3" in told["left_out"][1]


def test_annotations_find_their_image_or_are_missed(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": 7, "file_name": "train/a.png"}, {"id": 8, "file_name": "b.png"}]
    coco(source, [*images, {"id": 8, "file_name": "val/a.png"}], ["7", 8, 9])
    dataset, told = bring_in(source, "--val", "0", "--test", "0", capsys=capsys)
    assert (told["tiles"], told["objects"]) == (1, 1), "7 and '7' are one image; two with one id cannot be told apart"
    assert len(told["left_out"]) == 3
    assert "1 objects are of images that are not listed (first: image_id 9)" in told["left_out"][0]
    assert len(tiles_of(dataset)[0].instances) == 1


def test_specks_of_a_noisy_mask_take_no_memory_each(tmp_path: Path) -> None:
    mask = np.zeros((256, 256), dtype=np.uint8)
    mask[::4, ::4] = 1
    np.savez(tmp_path / "a.npz", masks=mask, rgb=np.zeros((3, 256, 256), dtype=np.uint8))
    tracemalloc.start()
    (tile,) = stack(tmp_path / "a.npz", {}, "", ("RTS",), False, [])
    assert len(tile.objects) == 64 * 64
    assert tracemalloc.get_traced_memory()[1] < 64 * mask.size
    tracemalloc.stop()


def test_labelme_and_via_shapes_become_the_same_objects(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = [
        {"label": "RTS", "points": POINTS, "shape_type": "polygon", "group_id": None},
        {"label": "RTS", "points": [[24, 4], [28, 8]], "shape_type": "rectangle", "group_id": 1},
        {"label": "RTS", "points": [[24, 14], [28, 18]], "shape_type": "rectangle", "group_id": 1},
    ]
    (source / "b.json").write_text(json.dumps({"imagePath": "..\\images\\b.png", "shapes": shapes, "imageHeight": 24}))
    line = {**shapes[0], "shape_type": "line", "points": POINTS[:2]}
    (source / "a.json").write_text(json.dumps({"imagePath": "images/val/a.png", "shapes": [shapes[0], line]}))
    dataset, told = bring_in(source, "--val", "0", "--test", "0", capsys=capsys)
    assert (told["format"], told["tiles"], told["objects"], told["problems"]) == ("labelme", 1, 2, {})
    assert "line" in told["left_out"][0]
    square, pair = (segmentation_mask(i.segmentation, 24, 32) for i in tiles_of(dataset)[0].instances)
    assert (square.sum(), pair.sum()) == (16 * 8, 2 * 16)


def test_a_via_project_comes_in(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = zip(*POINTS, strict=True)
    regions = [
        {
            "shape_attributes": {"name": "polygon", "all_points_x": x, "all_points_y": y},
            "region_attributes": {"type": "RTS"},
        },
        {
            "shape_attributes": {"name": "rect", "x": 24, "y": 4, "width": 4, "height": 4},
            "region_attributes": {"type": {"pond": True}},
        },
        {"shape_attributes": {"name": "circle", "cx": 10, "cy": 18, "r": 4}, "region_attributes": {"type": "RTS"}},
    ]
    point = {"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": {"type": "RTS"}}
    data = {
        "b.png123": {"filename": "b.png", "size": 123, "regions": regions},
        "a.png9": {"filename": "val/a.png", "regions": {"0": point}},
    }
    (source / "via.json").write_text(json.dumps({"_via_img_metadata": data}))
    dataset, told = bring_in(source, "--class-attribute", "type", "--val", "0", "--test", "0", capsys=capsys)
    assert (told["format"], told["tiles"], told["objects"], told["problems"]) == ("via", 1, 3, {})
    assert len(told["left_out"]) == 1
    masks = [segmentation_mask(i.segmentation, 24, 32).sum() for i in tiles_of(dataset)[0].instances]
    assert masks[:2] == [16 * 8, 16]
    assert masks[2] == pytest.approx(np.pi * 16, abs=4)


@pytest.mark.parametrize("last", [True, False])
def test_stacks_of_arrays_become_tiles(last: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    images, dem = rng.random((4, 3, 24, 32), dtype=np.float32), rng.random((4, 24, 32))
    masks = np.zeros((4, 24, 32), dtype=np.uint8)
    masks[:, 2:6, 2:6], masks[:, 12:20, 12:20] = 1, 1
    (tmp_path / "source").mkdir()
    kept = np.moveaxis(images, 1, 3) if last else images
    np.savez_compressed(tmp_path / "source/site.npz", RGB=kept, dem=dem, masks=masks, years=np.arange(4))
    dataset, told = bring_in(tmp_path / "source", "--classes", "RTS", "--test", "0.5", "--val", "0", capsys=capsys)
    assert (told["format"], told["tiles"], told["objects"], told["problems"]) == ("npz", 4, 8, {})
    assert {m.name: len(m.bands) for m in dataset.modalities} == {"rgb": 3, "dem": 1}
    assert [len(dataset.tiles(split)) for split in ("train", "test")] == [2, 2]
    for tile in tiles_of(dataset):
        chip: ChipInput = read_tile(dataset, dataset.modalities, tile)
        number = int(tile.file_name[5:10])
        assert np.array_equal(chip.arrays["rgb"], images[number])
        assert [segmentation_mask(i.segmentation, 24, 32).sum() for i in tile.instances] == [16, 64]


def test_an_archive_that_is_damaged_anywhere_is_refused_or_reads_the_same(tmp_path: Path) -> None:
    file, masks = tmp_path / "a.npz", np.eye(32, dtype=np.uint8)
    np.savez_compressed(file, masks=masks)
    whole, refused = file.read_bytes(), 0
    for place in range(len(whole)):
        for other in (0xFF, 0x06):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ other]) + whole[place + 1 :])
            try:
                found = read_archive(file)
            except DatasetError:
                refused += 1
            else:
                assert all(array.tolist() == masks.tolist() for array in found.values())
    assert refused > len(whole)


def test_archives_of_objects_and_claims_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, masks=np.array([print], dtype=object))
    with pytest.raises(DatasetError, match=r"not a readable \.npz of numbers .*values other than numbers"):
        read_archive(file)
    with zipfile.ZipFile(file, "w") as archive, archive.open("a.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    with pytest.raises(DatasetError, match="does not have the size in its header"):
        read_archive(file)
    file.write_bytes(b"no archive")
    with pytest.raises(DatasetError, match=r"not a readable \.npz"):
        read_archive(file)


def test_nothing_to_bring_in_is_said_and_leaves_nothing(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "notes.json").write_text('{"imagePath": "../../../etc/passwd.png", "shapes": []}')
    out = source.parent / "out"
    assert main(["import-dataset", str(source), "--out", str(out)]) == 1
    assert "No labelled tile was found (first: notes.json: image" in capsys.readouterr().err
    assert sorted(p.name for p in source.parent.iterdir()) == ["source"]
