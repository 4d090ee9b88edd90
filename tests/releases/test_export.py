"""Exports: the same labels in other formats, safe to open, complete or absent."""

import csv
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from shapely.geometry import shape

from tests.releases.site import DATE_LINE, Site, annotate, tiles
from thawloop.campaigns.models import Campaign
from thawloop.catalog.geometry import geodesic_area, project
from thawloop.core.context import acting
from thawloop.releases.errors import ExportRefused
from thawloop.releases.exports.datasets import to_picture
from thawloop.releases.exports.features import pseudonym, safe_text
from thawloop.releases.models import Release
from thawloop.releases.selectors import diff, find_release
from thawloop.releases.services import export, freeze_release, import_labels, materialise

Write = Callable[..., Path]


@pytest.fixture
def release(campaign: Campaign, site: Site, label_file: Write) -> Release:
    """Two test labels imported by somebody with a hostile name, one train label drawn."""
    ring = site.on_tile(5, 1, [(20, 20), (44, 20), (44, 44), (20, 44)], [(28, 28), (36, 28), (36, 36), (28, 36)])
    path = label_file(shapely.reverse(site.square(5, 0)), ring, name="=cmd().geojson")
    with acting(name="=HYPERLINK(1)"):
        import_labels(campaign, path, splits=["test"], coverage="regions")
    annotate(campaign, tiles(campaign, "train")[0], [[(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)]])
    return freeze_release(campaign)


def test_geojson_is_rfc_7946_and_safe(release: Release, tmp_path: Path) -> None:
    path = export(release, "geojson", tmp_path / "x.geojson")

    content = json.loads(path.read_text())
    assert content.keys() == {"type", "features"}
    assert len(content["features"]) == 3
    for feature in content["features"]:
        polygons = shape(feature["geometry"])
        assert feature["geometry"]["type"] == "MultiPolygon"
        assert polygons.is_valid
        assert all(p.exterior.is_ccw and not any(r.is_ccw for r in p.interiors) for p in polygons.geoms)
        row = feature["properties"]
        assert row["area_m2"] == pytest.approx(geodesic_area(polygons), rel=1e-3)
        assert row["perimeter_m"] > 0
        assert row["release"] == "site 1.0.0"
        assert feature["id"] == row["label"]
    imported = [f["properties"] for f in content["features"] if f["properties"]["split"] == "test"]
    assert {(row["author"], row["region"]) for row in imported} == {(pseudonym("=HYPERLINK(1)"), "site-test")}
    assert {row["source"] for row in imported} == {"import of =cmd().geojson"}


def test_nobodys_address_is_published(campaign: Campaign, site: Site, label_file: Write, tmp_path: Path) -> None:
    with acting(name="ann@example.org"):
        import_labels(campaign, label_file(site.square(0, 0), site.square(5, 1)), coverage="regions")
    release, out = freeze_release(campaign), tmp_path / "out"
    out.mkdir()
    for fmt, name in (("geojson", "x.geojson"), ("gpkg", "x.gpkg"), ("tiles", "t.geojson"), ("dataset", "folder")):
        export(release, fmt, out / name)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if b"ann@example.org" in path.read_bytes()]


def test_tiles_tell_where_there_is_nothing(release: Release, tmp_path: Path) -> None:
    content = json.loads(export(release, "tiles", tmp_path / "x.geojson").read_text())
    rows = [feature["properties"] for feature in content["features"]]
    assert sorted((row["split"], row["labels"], row["labelled_by"]) for row in rows) == [
        *[("test", 0, "import")] * 4, *[("test", 1, "import")] * 2, ("train", 1, "annotator"),
    ]  # fmt: skip
    assert all(shape(feature["geometry"]).is_valid for feature in content["features"])
    meta, _, wkb, columns = pyogrio.raw.read(export(release, "gpkg", tmp_path / "x.gpkg"), layer="tiles")
    types = dict(zip(meta["fields"], meta["dtypes"], strict=True))
    assert {name: np.dtype(types[name]).kind for name in ("tile", "labels")} == {"tile": "O", "labels": "i"}
    assert sorted(dict(zip(meta["fields"], columns, strict=True))["labels"]) == [0] * 4 + [1] * 3
    assert {round(square.area) for square in shapely.from_wkb(wkb)} == {(64 * 3) ** 2}


def test_gpkg_is_in_the_grid_system(release: Release, tmp_path: Path) -> None:
    path = export(release, "gpkg", tmp_path / "x.gpkg")

    meta, _, wkb, columns = pyogrio.raw.read(path, layer="labels")
    assert meta["crs"] == "EPSG:3413"
    assert pyogrio.list_layers(path).tolist() == [["labels", "MultiPolygon"], ["tiles", "Polygon"]]
    rows = dict(zip(meta["fields"], columns, strict=True))
    held = {str(row.revision.label_id): row.revision for row in release.release_labels.select_related("revision")}
    assert set(rows["label"]) == held.keys()
    for label, geometry in zip(rows["label"], shapely.from_wkb(wkb), strict=True):
        expected = project(shapely.from_wkb(bytes(held[label].geometry.wkb)), 4326, 3413)
        assert geometry.symmetric_difference(expected).area < 1e-3
    assert np.isfinite(rows["area_m2"]).all()
    assert (rows["revision"].dtype.kind, rows["area_m2"].dtype.kind, set(rows["revision"])) == ("i", "f", {1})


def test_labels_across_the_antimeridian_stay_whole(
    db: None, make_campaign: Callable[..., Campaign], label_file: Write, tmp_path: Path
) -> None:
    campaign, site = make_campaign(origin=DATE_LINE), Site(origin=DATE_LINE)
    # The antimeridian is the diagonal of this tile; in the file, longitudes jump from 180 to -180.
    crossing = site.square(2, 1, x=20, y=20, side=24)
    assert crossing.bounds[2] - crossing.bounds[0] > 300
    import_labels(campaign, label_file(crossing, site.square(5, 0)), coverage="regions")
    release = freeze_release(campaign)

    folder = materialise(release)
    (row,) = json.loads((folder / "annotations" / "train.json").read_text())["annotations"]
    assert row["bbox"] == pytest.approx([20, 20, 24, 24], abs=0.01)
    assert row["area"] == pytest.approx(576, abs=0.2)
    assert len(row["segmentation"]) == 1

    features = json.loads(export(release, "geojson", tmp_path / "x.geojson").read_text())["features"]
    shapes = [shape(feature["geometry"]) for feature in features]
    assert sorted(len(polygons.geoms) for polygons in shapes) == [1, 2]
    assert all(-180 <= polygons.bounds[0] <= polygons.bounds[2] <= 180 for polygons in shapes)
    _, _, wkb, _ = pyogrio.raw.read(export(release, "gpkg", tmp_path / "x.gpkg"), layer="labels")
    assert [len(polygons.geoms) for polygons in shapely.from_wkb(wkb)] == [1, 1]
    assert shapely.area(shapely.from_wkb(wkb)).max() == pytest.approx(576 * 9, rel=1e-3)


def test_empty_release_of_labels_is_still_a_file(campaign: Campaign, site: Site, tmp_path: Path) -> None:
    for split in ("train", "test"):
        annotate(campaign, tiles(campaign, split)[0])
    release = freeze_release(campaign)

    assert json.loads(export(release, "geojson", tmp_path / "x.json").read_text())["features"] == []
    assert len(pyogrio.raw.read(export(release, "gpkg", tmp_path / "x.gpkg"), layer="labels")[2]) == 0


def test_dataset_is_copied_or_zipped(release: Release, tmp_path: Path) -> None:
    folder = materialise(release)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    copy = export(release, "dataset", tmp_path / "copy")
    archive = export(release, "dataset", tmp_path / "copy.zip")

    assert sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()) == names
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [f"site-1.0.0/{name}" for name in names]
        assert file.read("site-1.0.0/dataset.json") == (folder / "dataset.json").read_bytes()
    again = export(release, "dataset", tmp_path / "again.zip")
    assert again.read_bytes() == archive.read_bytes()


def test_coco_is_an_ordinary_coco_set(release: Release, tmp_path: Path) -> None:
    folder = export(release, "coco", tmp_path / "coco")

    test = COCO(str(folder / "annotations" / "instances_test.json"))
    assert len(test.getImgIds()) == 6
    assert len(test.getAnnIds()) == 2
    image = test.loadImgs(test.getImgIds())[0]
    with Image.open(folder / "images" / image["file_name"]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 64))
        pixels = np.asarray(picture)
    chip_name = Path(image["file_name"]).with_suffix(".tif").name
    with rasterio.open(materialise(release) / "chips" / "rgb" / chip_name) as chip:
        values = np.moveaxis(chip.read(), 0, -1)
    np.testing.assert_array_equal(pixels, np.nan_to_num(values).round())
    assert (folder / "README.md").read_text().startswith("# site 1.0.0\n")


def test_no_data_is_black_in_pictures_and_what_is_beyond_the_range_is_cut() -> None:
    chip = np.array([[[np.nan, -np.inf, -1.0, 0.0, 1.0, 2.0, 9.0, np.inf]]])
    assert np.asarray(to_picture(chip, [0.0, 2.0])).tolist() == [[0, 0, 0, 0, 128, 255, 255, 255]]


@pytest.mark.parametrize(
    ("fmt", "name", "sentence"),
    [
        ("shapefile", "x.shp", "Format `shapefile` is unknown: use coco, dataset, geojson, gpkg"),
        ("gpkg", "x.geojson", "should end in .gpkg"),
        ("gpkg", "nowhere/x.gpkg", "no folder .*nowhere: create it first"),
        ("geojson", "there.geojson", "exists: name another place, or replace it with --force"),
    ],
)
def test_export_that_cannot_be_is_refused(release: Release, tmp_path: Path, fmt: str, name: str, sentence: str) -> None:
    (tmp_path / "there.geojson").write_text("precious")
    before = sorted(tmp_path.iterdir())

    with pytest.raises(ExportRefused, match=sentence):
        export(release, fmt, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.geojson").read_text() == "precious"


def test_an_export_is_made_beside_its_place(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same file system, so that it can be moved there at once."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert export(release, "geojson", tmp_path / "x.geojson").is_file()


def test_force_replaces_files_and_exports_but_no_other_folder(release: Release, tmp_path: Path) -> None:
    (tmp_path / "x.geojson").write_text("old")
    assert export(release, "geojson", tmp_path / "x.geojson", force=True).read_text() != "old"
    export(release, "coco", tmp_path / "coco")
    export(release, "coco", tmp_path / "coco", force=True)
    (tmp_path / "file").write_text("old")
    assert (export(release, "coco", tmp_path / "file", force=True) / "annotations").is_dir()
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("precious")

    with pytest.raises(ExportRefused, match="not exported from here"):
        export(release, "dataset", home, force=True)
    assert (home / "thesis.txt").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_failed_export_leaves_nothing(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyogrio.raw, "write", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Exception, match=r"is full: x.gpkg could not be written"):
        export(release, "gpkg", tmp_path / "x.gpkg")
    assert sorted(tmp_path.iterdir()) == before


@given(st.text(max_size=40))
def test_safe_text_starts_no_formula_and_stays_on_its_line(text: str) -> None:
    safe = safe_text(text)
    out = io.StringIO(newline="")
    csv.writer(out).writerow([safe])
    assert not safe.lstrip().startswith(("=", "+", "-", "@"))
    assert len(out.getvalue().splitlines()) == 1


def test_diff_names_what_came_went_and_changed(release: Release) -> None:
    campaign = release.campaign
    first, second, *_ = tiles(campaign, "train")
    annotate(campaign, first, [[(10.0, 10.0), (20.0, 10.0), (20.0, 20.0)]], number=2)
    annotate(campaign, second, [[(10.0, 10.0), (20.0, 10.0), (20.0, 20.0)]])
    later = freeze_release(campaign)

    found = diff(release, later)

    assert (len(found.labels.added), found.labels.removed, len(found.labels.changed)) == (1, [], 1)
    assert (found.tiles.added, found.tiles.removed, found.tiles.changed) == ([second.key], [], [first.key])
    assert found.to_json()["labels"]["added"]["count"] == 1
    assert diff(later, later).labels.to_json()["changed"]["count"] == 0


def test_releases_are_found_by_name(release: Release) -> None:
    assert find_release("site/1.0.0") == find_release("latest", campaign=release.campaign) == release
    with pytest.raises(Exception, match=r"There is no release `2.0.0`: choose one of site/1.0.0"):
        find_release("2.0.0", campaign=release.campaign)
    with pytest.raises(Exception, match=r"could be of any campaign: write CAMPAIGN/1.0.0"):
        find_release("1.0.0")
