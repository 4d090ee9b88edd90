"""Rasters of any size: read in pieces, resumed after a kill, written whole."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from ml_backend.detector import ChipInput, DatasetError, Detector, TrainResult
from ml_backend.detector.chips import OpenChip, read_chip
from ml_backend.detector.commands import main
from ml_backend.detector.inference import network, rasters
from ml_backend.detector.inference.journal import Journal
from ml_backend.detector.inference.rasters import RasterStack
from ml_backend.detector.inference.scanning import Source, collect_detections, scan
from ml_backend.detector.inference.windows import Window
from tests.detector.inference.test_predict_command import UTM, write_raster
from tests.detector.inference.test_windows import IDS, PerfectWindows, stand_in

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def stack(mosaic: ChipInput, tmp_path: Path) -> list[str]:
    return [
        option
        for name, array in mosaic.arrays.items()
        for option in ("--chip", f"{name}={write_raster(tmp_path / f'{name}.tif', array, **UTM)}")
    ]


@pytest.fixture
def common(trained: TrainResult, stack: list[str]) -> list[str]:
    windows = ["--window", "48", "--overlap", "12", "--min-pixels", "1", "--batch-size", "2"]
    return ["predict", "--checkpoint", str(trained.checkpoint), "--device", "cpu", *stack, *windows]


def found_in(file: Path) -> list[tuple[Any, ...]]:
    """All that a GeoPackage says of each find, in its order."""
    meta, _, shapes, columns = pyogrio.raw.read(file)
    rows = zip(*(column.tolist() for column in columns), shapes, strict=True)
    return [(*meta["fields"], *row) for row in rows]


def test_a_geopackage_holds_what_the_geojson_holds_in_the_rasters_own_coordinates(
    common: list[str], detector: Detector, tmp_path: Path
) -> None:
    gpkg, geojson = tmp_path / "out.gpkg", tmp_path / "out.geojson"
    assert main([*common, "--gpkg", str(gpkg), "--geojson", str(geojson)]) == 0
    (layer,) = pyogrio.list_layers(gpkg)
    assert tuple(layer) == ("finds", "MultiPolygon")
    meta, _, shapes, columns = pyogrio.raw.read(gpkg)
    values = dict(zip(meta["fields"], columns, strict=True))
    features = json.loads(geojson.read_text())["features"]
    assert meta["crs"] == "EPSG:32608"
    assert len(shapes) == len(features) > 3
    assert values["score"].tolist() == sorted(values["score"], reverse=True)
    assert values["tile"].tolist() == ["rgb.tif"] * len(features)
    for index, feature in enumerate(features):
        known = feature["properties"]
        assert [values[f"stage_{n}"][index] for n in (1, 2, 3)] == known["stage_scores"]
        assert values["probability"][index] == known["probability"] == detector.calibration.probability(known["score"])
        there = shapely.from_wkb(shapes[index])
        back = shapely.geometry.shape(rasterio.warp.transform_geom("EPSG:4326", "EPSG:32608", feature["geometry"]))
        assert there.symmetric_difference(back).area < 0.05 * there.area
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.geojson", "out.gpkg", "relative_elevation.tif", "rgb.tif"
    ]  # fmt: skip


def test_a_raster_with_nothing_in_it_is_an_empty_layer(common: list[str], tmp_path: Path) -> None:
    gpkg = tmp_path / "out.gpkg"
    assert main([*common, "--score-threshold", "1", "--gpkg", str(gpkg), "--out", str(tmp_path / "out.json")]) == 0
    assert found_in(gpkg) == []
    assert pyogrio.read_info(gpkg)["crs"] == "EPSG:32608"
    assert len(json.loads((tmp_path / "out.json").read_text())["tiles"][0]["embedding"]) > 8


DYING = """
import os, signal, sys
from ml_backend.detector.chips import OpenChip, read_chip
from ml_backend.detector.commands import main
from ml_backend.detector.inference import outputs
from ml_backend.detector.inference.journal import Journal

where, count, keep = sys.argv[1], int(sys.argv[2]), Journal.add_batch

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def kept(self, batch, shown):
    global count
    count -= 1
    if where == "within" and not count:
        self._rows.execute("BEGIN")
        self._rows.executemany("INSERT INTO seen VALUES (?, ?, ?)", [(t, w, s.to_bytes()) for t, w, s in shown])
        die()
    keep(self, batch, shown)
    if where == "after" and not count:
        die()

Journal.add_batch = kept
if where == "concluding":
    Journal.detections = die
if where == "discarding":
    Journal.discard = die
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    "place",
    [
        "within 3",
        *(pytest.param(place, marks=pytest.mark.slow) for place in ("after 2", "concluding 0", "discarding 0")),
    ],
)
def test_killed_anywhere_the_same_command_finds_the_same(common: list[str], tmp_path: Path, place: str) -> None:
    whole, again = tmp_path / "whole.gpkg", tmp_path / "again.gpkg"
    assert main([*common, "--gpkg", str(whole)]) == 0
    command = [*common, "--gpkg", str(again)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", DYING, *place.split(), *command], env=environment, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert again.exists() == (place == "discarding 0")
    assert (tmp_path / "again.gpkg.unfinished").exists()
    looked = network.detect
    windows: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            network,
            "detect",
            lambda model, tiles, symmetries: windows.append(len(tiles)) or looked(model, tiles, symmetries),
        )
        assert main(command) == 0
    expected = found_in(whole)
    assert expected
    assert found_in(again) == expected
    assert sum(windows) == {"within 3": 16 - 4, "after 2": 16 - 4}.get(place, 0)
    assert not (tmp_path / "again.gpkg.unfinished").exists()


def test_an_unfinished_prediction_of_something_else_is_refused_until_it_is_discarded(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*common, "--gpkg", str(tmp_path / "out.gpkg")]
    unfinished = tmp_path / "out.gpkg.unfinished"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "replace_detections", stop)
        assert main(command) == 1
    assert "the same command continues" in capsys.readouterr().err
    before = unfinished.read_bytes()
    os.utime(tmp_path / "rgb.tif", (1, 1))  # as if it had been exported anew
    for other in (command, [*command, "--tta", "flips"]):
        assert main(other) == 1
        assert "out.gpkg.unfinished holds an unfinished prediction of other rasters" in capsys.readouterr().err
        assert unfinished.read_bytes() == before
    assert main([*command, "--no-resume"]) == 0
    assert not unfinished.exists()


def test_stopped_after_the_last_window_the_same_command_only_concludes(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*common, "--gpkg", str(tmp_path / "out.gpkg")]

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "replace_detections", stop)
        assert main(command) == 1
    with monkeypatch.context() as patch:
        patch.setattr(network, "detect", stop)
        assert main(command) == 0
    assert found_in(tmp_path / "out.gpkg")


def test_two_predictions_do_not_share_an_output(tmp_path: Path) -> None:
    from ml_backend.detector.errors import CannotResumeError, FolderInUseError

    file = tmp_path / "out.unfinished"
    with Journal(file, {}), pytest.raises(FolderInUseError, match="is being written by another prediction"):
        Journal(file, {})
    file.write_bytes(b"what a failing disk left " * 100)
    with pytest.raises(CannotResumeError, match="is damaged"):
        Journal(file, {})
    sqlite3.connect(tmp_path / "fresh").close()
    Journal(tmp_path / "fresh", {}).discard()
    assert not (tmp_path / "fresh").exists()


def scene(file: Path, side: int, step: int) -> int:
    """A raster of numbered discs, a lattice whose discs lie across most windows' edges; how many."""
    block, number = 256, 0
    profile: dict[str, Any] = {"count": 1, "height": side, "width": side, "dtype": "float32", "tiled": True}
    centres = np.arange(step // 2, side, step)
    with rasterio.open(
        file, "w", driver="GTiff", compress="deflate", blockxsize=block, blockysize=block, **profile, **UTM
    ) as raster:
        for top in range(0, side, block):
            rows = min(block, side - top)
            ids = np.zeros((rows, side), dtype=np.float32)
            y, x = np.mgrid[top : top + rows, :side]
            for row, cy in enumerate(centres):
                if cy + 20 < top or cy - 20 > top + rows:
                    continue
                for column, cx in enumerate(centres):
                    part = slice(max(cx - 16, 0), cx + 16)
                    disc = (x[:, part] - cx) ** 2 + (y[:, part] - cy) ** 2 <= 12**2
                    ids[:, part][disc] = 1 + row * len(centres) + column
            raster.write(ids, 1, window=rasterio.windows.Window(0, top, side, rows))
    number = len(centres) ** 2
    return number


def test_memory_grows_with_a_row_of_windows_and_every_object_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "detect", PerfectWindows(apart=False))
    most: list[int] = []
    from ml_backend.detector.inference.merging import Merger

    add = Merger.add
    monkeypatch.setattr(Merger, "add", lambda self, *a: (add(self, *a), most.append(len(self.open_boxes())))[0])
    read: list[tuple[int, int]] = []
    whole = OpenChip.read

    def noted(self: OpenChip, *window: Any) -> Any:
        array, valid = whole(self, *window)
        read.append(valid.shape)
        return array, valid

    monkeypatch.setattr(OpenChip, "read", noted)
    side, step = 1000, 40
    count = scene(tmp_path / "ids.tif", side, step)
    stack = RasterStack({"ids": tmp_path / "ids.tif"}, [IDS])
    sources = [Source("ids.tif", (tmp_path / "ids.tif",), stack, stack.georeference)]
    with Journal(tmp_path / "journal", {}) as journal:
        scan(stand_in(), sources, journal, window=96, overlap=32, batch_size=4, progress=lambda share, text: None)
        collect_detections(stand_in(), sources, journal, score_threshold=0, min_pixels=1, max_overlap=None, tolerance=0)
        finds = list(journal.detections(0))
    assert len(finds) == count
    centres = {tuple(np.round(shapely.Polygon(find["rings"][0]).centroid.coords[0]).astype(int)) for find in finds}
    expected = np.arange(step // 2, side, step) + 0.5
    assert centres == {tuple(np.round([x, y]).astype(int)) for x in expected for y in expected}
    assert max(read) == (96, 96)
    assert max(most) <= 4 * (side / step)  # the discs that two rows of windows see; there are 625 in all


def test_a_raster_that_can_only_be_read_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_raster(
        tmp_path / "ids.tif", np.zeros((1, 600, 600)), tiled=True, blockxsize=608, blockysize=608, **UTM
    )
    assert RasterStack({"ids": file}, [IDS]).read(Window(580, 580, 600, 600)).arrays["ids"].shape == (1, 20, 20)
    monkeypatch.setattr(rasters, "CACHE_MB", 1)
    with pytest.raises(DatasetError, match=r"stored in blocks of 608 x 608 pixels: write it in tiles"):
        RasterStack({"ids": file}, [IDS])


def test_boxes_on_a_large_raster_read_only_what_is_around_them(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Window] = []
    of = RasterStack.read
    monkeypatch.setattr(RasterStack, "read", lambda self, window: (read.append(window), of(self, window))[1])
    boxes = [word for word in common if word not in ("--window", "48", "--overlap", "12")]
    assert main([*boxes, "--box", "70,70,120,120", "--gpkg", str(tmp_path / "out.gpkg")]) == 0
    assert [window.size for window in read] == [(64, 64)]
    assert len(found_in(tmp_path / "out.gpkg")) <= 1


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_turned_picture_is_the_same_in_pieces_as_whole(tmp_path: Path, turned: int) -> None:
    from PIL import Image

    pixels = np.random.default_rng(turned).integers(0, 255, (40, 60), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(pixels).save(tmp_path / "ids.png", exif=exif)
    array, valid = read_chip(tmp_path / "ids.png", IDS)
    stack = RasterStack({"ids": tmp_path / "ids.png"}, [IDS])
    assert stack.size == valid.shape == ((40, 60) if turned < 5 else (60, 40))
    for window in (Window(3, 5, 21, 37), Window(0, 0, *stack.size[::-1])):
        part = stack.read(window)
        rows, columns = window.slices
        assert np.array_equal(part.arrays["ids"], array[:, rows, columns])
        assert np.array_equal(part.valid["ids"], valid[rows, columns])


@pytest.mark.parametrize("what", ["picture", "blank"])
def test_what_an_alpha_band_is_does_not_depend_on_the_window(tmp_path: Path, what: str) -> None:
    """An alpha band that hides a picture is a label mask; seen window by window it would be now this, now that."""
    pixels = np.random.default_rng(0).integers(1, 250, (1, 64, 64), dtype=np.uint8)
    alpha = np.full((1, 64, 64), 255, dtype=np.uint8)
    alpha[:, :40, :40] = 0
    pixels[:, :40, :40] *= what == "picture"
    pixels[:, :16, :16] = 0
    file, profile = tmp_path / "ids.tif", {"count": 2, "height": 64, "width": 64, "dtype": "uint8", **UTM}
    with rasterio.open(file, "w", driver="GTiff", photometric="MINISBLACK", ALPHA="YES", **profile) as raster:
        raster.write(np.concatenate([pixels, alpha]))
    _, valid = read_chip(file, IDS)
    assert valid.all() == (what == "picture")
    stack = RasterStack({"ids": file}, [IDS])
    for window in (Window(0, 0, 16, 16), Window(20, 20, 60, 60)):
        assert np.array_equal(stack.read(window).valid["ids"], valid[window.slices])
