"""``check``: everything that is wrong at once; ``--repair``: what is unambiguous mended, in a new directory."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from pycocotools import mask as coco_mask

from ml_backend.detector.commands import main
from ml_backend.detector.masks import polygons_mask, segmentation_mask
from ml_backend.detector.outlines import winding
from ml_backend.detector.repair import repair_annotations
from ml_backend.detector.validation import find_problems
from tests.detector.files import edit_json

SIZE = (64, 64)
SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]
EIGHT = [10.0, 10.0, 30.0, 30.0, 30.0, 10.0, 10.0, 30.0]
# once around a square, and around it again: inside by one rule, outside by the other
TWICE = [*SQUARE, 9.5, 9.5, 30.5, 9.5, 30.5, 30.5, 9.5, 30.5]


def coco(*outlines: Any, **of_all: Any) -> dict[str, Any]:
    entries = [
        {"id": n + 1, "image_id": 1, "category_id": 1, "segmentation": outline, **of_all}
        for n, outline in enumerate(outlines)
    ]
    image = {"id": 1, "file_name": "a.tif", "height": SIZE[0], "width": SIZE[1]}
    return {"images": [image], "annotations": entries, "categories": [{"id": 1, "name": "RTS"}]}


def mended(data: dict[str, Any], classes: tuple[str, ...] = ("RTS",)) -> tuple[dict[str, Any], list[str]]:
    changed = copy.deepcopy(data)
    return changed, [change.text for change in repair_annotations(changed, classes, "train.json")]


def test_everything_that_is_wrong_is_listed_at_once(own_dataset_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(data: dict[str, Any]) -> None:
        image = data["images"][0]["id"]
        whole = {"image_id": image, "category_id": 1}
        data["annotations"] += [{"id": 900 + n, **whole, "segmentation": [EIGHT]} for n in range(125)]
        data["annotations"] += [
            {"id": 2000, **whole, "segmentation": [[1.0, 2.0]]},
            {"id": 2001, **whole, "segmentation": [SQUARE], "category_id": 7},
            {"id": 2002, **whole, "segmentation": [SQUARE], "image_id": 777},
            {"id": 2002, **whole, "segmentation": [[500.0, 500.0, 510.0, 500.0, 510.0, 510.0]]},
            "nonsense",
        ]
        data["images"].append({"id": 50, "file_name": "../up.tif", "width": 64, "height": 64})

    edit_json(own_dataset_dir / "annotations/train.json", spoil)
    (own_dataset_dir / "chips/rgb/val_0000.tif").write_bytes(b"broken")
    (own_dataset_dir / "chips/relative_elevation/val_0001.tif").write_bytes(b"broken")
    assert main(["check", str(own_dataset_dir), "--json"]) == 1
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert told["kinds"] == {
        "outline crosses itself": 125,
        "unreadable chip": 2,
        "broken entry in annotations": 1,
        "unusable image": 1,
        "annotation id twice": 1,
        "undeclared class": 1,
        "annotation of no image": 1,
        "too few points": 1,
        "outline outside": 1,
    }
    assert {p["annotation"] for p in told["problems"] if p["kind"] == "outline crosses itself"} == set(range(900, 1025))
    assert "134 things are wrong" in printed.err
    assert main(["check", str(own_dataset_dir)]) == 1
    text = capsys.readouterr().out
    assert "125  outline crosses itself" in text
    assert "annotation 900 on 'train_0000.tif' is not a valid polygon" in text
    assert "and 105 more" in text


def test_a_sound_dataset_passes(own_dataset_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(own_dataset_dir)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert find_problems(own_dataset_dir / "nowhere")[0].kind == "description"


def test_a_repaired_dataset_is_new_sound_and_tells_every_change(
    own_dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = own_dataset_dir / "annotations/train.json"
    extra = {"id": 900, "image_id": 1, "category_id": 1, "segmentation": [EIGHT]}
    edit_json(file, lambda data: data["annotations"].append(extra))
    before = {p: p.read_bytes() for p in own_dataset_dir.rglob("*") if p.is_file()}
    out = tmp_path / "mended"
    assert main(["check", str(own_dataset_dir), "--repair", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (change,) = told["changes"]
    assert (change["file"], change["annotation"]) == ("annotations/train.json", 900)
    assert json.loads((out / "repairs.json").read_text()) == told["changes"]
    assert {p: p.read_bytes() for p in own_dataset_dir.rglob("*") if p.is_file()} == before, "never in place"
    chips = [p.relative_to(own_dataset_dir) for p in own_dataset_dir.rglob("*.tif")]
    assert all((out / chip).read_bytes() == (own_dataset_dir / chip).read_bytes() for chip in chips)
    assert main(["check", str(own_dataset_dir), "--repair", str(out)]) == 1
    assert "exists: give the name of a new folder" in capsys.readouterr().err
    assert main(["check", str(own_dataset_dir), "--repair", str(own_dataset_dir / "in")]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "mended"], "no drafts are left"


def test_an_outline_that_crosses_itself_becomes_the_pixels_it_means() -> None:
    data, texts = mended(coco([EIGHT], [SQUARE]))
    assert len(texts) == 1
    eight = segmentation_mask(data["annotations"][0]["segmentation"], *SIZE)
    assert eight.sum() == pytest.approx(200, abs=20), "both lobes"
    assert data["annotations"][1]["segmentation"] == [SQUARE], "sound outlines stay"


def test_an_outline_that_may_mean_two_things_stays_as_it_is() -> None:
    data = coco([TWICE])
    assert mended(data) == (data, [])


@pytest.mark.parametrize(
    ("outline", "of_all", "left", "text"),
    [
        ([SQUARE, [1, 2, 3, 4]], {}, [SQUARE], "left out 1 of its parts"),
        ([SQUARE, [90, 90, 99, 90, 99, 99]], {}, [SQUARE], "left out 1 of its parts"),
        ([[90, 90, 99, 90, 99, 99]], {}, None, "removed it: it lies outside"),
        ({"size": [64, 64], "counts": [64 * 64]}, {}, None, "removed it: it covers no pixel"),
        ([], {"bbox": [4, 4, 8, 8]}, [[4, 4, 12, 4, 12, 12, 4, 12]], "ignored region"),
        ([[1, 2]], {"bbox": [4, 4, 0, 8]}, [[1, 2]], ""),
        ([[1, 2]], {}, [[1, 2]], ""),
        ([[1, 2, 3, 4, 5, 6, 7]], {"bbox": [4, 4, 8, 8]}, [[1, 2, 3, 4, 5, 6, 7]], ""),
        ([[1, 2, 3, 4, 5, "a"]], {"bbox": [4, 4, 8, 8]}, [[1, 2, 3, 4, 5, "a"]], ""),
        ({"size": [32, 32], "counts": [0, 1024]}, {}, {"size": [32, 32], "counts": [0, 1024]}, ""),
    ],
)
def test_no_object_becomes_background(outline: Any, of_all: dict[str, Any], left: Any, text: str) -> None:
    data, texts = mended(coco(outline, **of_all))
    assert [entry["segmentation"] for entry in data["annotations"]] == ([] if left is None else [left])
    assert len(texts) == (1 if text else 0)
    assert all(text in told for told in texts)
    if "ignored" in text:
        assert data["annotations"][0]["ignore"] == 1


def test_ids_and_classes_are_put_right_where_names_tell_how() -> None:
    data = coco([SQUARE], [SQUARE])
    data["categories"] = [{"id": 0, "name": "pond"}, {"id": 18, "name": "RTS"}]
    data["annotations"][0]["category_id"] = 18.0
    data["annotations"][1].update(id=1, category_id=0)
    data["annotations"].append({**data["annotations"][1], "id": 9, "image_id": 404})
    fixed, texts = mended(data, ("RTS", "pond"))
    assert [(entry["id"], entry["category_id"]) for entry in fixed["annotations"]] == [(1, 1), (10, 2)]
    assert fixed["categories"] == [{"id": 2, "name": "pond"}, {"id": 1, "name": "RTS"}]
    assert len(texts) == 4
    unknown = {**data, "categories": [{"id": 0, "name": "lake"}, {"id": 18, "name": "RTS"}]}
    assert [e["category_id"] for e in mended(unknown, ("RTS", "pond"))[0]["annotations"]] == [18, 0]


def test_winding_means_the_pixels_of_a_sound_polygon() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        ring = 32 + rng.uniform(5, 40, 12)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        around = winding(ring.ravel().tolist(), SIZE)
        assert set(np.unique(around)) in ({0, 1}, {0, -1}, {0})
        assert np.array_equal(around != 0, polygons_mask([shapely.Polygon(ring)], *SIZE))


def test_an_outline_of_twenty_thousand_random_points_costs_little() -> None:
    """Its 66 million crossings take gigabytes to repair as geometry."""
    ring = (np.random.default_rng(0).random((20_000, 2)) * 64).ravel().tolist()
    data = coco([ring])
    assert mended(data) == (data, []), "nobody knows what it means"
    long = [value for _ in range(30_000) for value in (1.0, 1.0, 9.0, 9.0)]
    assert mended(coco([long]))[1] == []


def test_masks_of_repairs_are_readable_rle() -> None:
    (entry,) = mended(coco([EIGHT]))[0]["annotations"]
    rle = entry["segmentation"]
    assert coco_mask.decode({**rle, "counts": rle["counts"].encode()}).shape == SIZE
