"""``predict``: tiles of a dataset, rasters outside any, and boxes on either."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from ml_backend.detector import ChipInput, DatasetError, Detection, Detector, TrainResult, inference
from ml_backend.detector.commands import main
from ml_backend.detector.inference import outputs
from ml_backend.detector.inference.outputs import features
from ml_backend.detector.inference.rasters import Georeference, read_georeference

UTM = {"crs": "EPSG:32608", "transform": from_origin(500_000, 7_600_000, 3, 3)}


def write_raster(file: Path, array: np.ndarray, **place: Any) -> Path:
    count, height, width = array.shape
    size: dict[str, Any] = {"count": count, "height": height, "width": width, "dtype": "float32"}
    with rasterio.open(file, "w", driver="GTiff", **size, **place) as raster:
        raster.write(array)
    return file


@pytest.fixture
def stack(mosaic: ChipInput, tmp_path: Path) -> list[str]:
    """The mosaic as two rasters in UTM, as options."""
    return [
        option
        for name, array in mosaic.arrays.items()
        for option in ("--chip", f"{name}={write_raster(tmp_path / f'{name}.tif', array, **UTM)}")
    ]


@pytest.fixture
def common(trained: TrainResult, tmp_path: Path) -> list[str]:
    return ["predict", "--checkpoint", str(trained.checkpoint), "--device", "cpu", "--out", str(tmp_path / "out.json")]


def written(tmp_path: Path) -> list[dict[str, Any]]:
    tiles: list[dict[str, Any]] = json.loads((tmp_path / "out.json").read_text())["tiles"]
    return tiles


def test_a_raster_outside_any_dataset_is_predicted_in_windows(
    common: list[str], stack: list[str], detector: Detector, mosaic: ChipInput, tmp_path: Path
) -> None:
    options = ["--window", "96", "--overlap", "24", "--min-pixels", "4", "--batch-size", "2"]
    assert main([*common, *stack, *options, "--geojson", str(tmp_path / "out.geojson")]) == 0
    (tile,) = written(tmp_path)
    (result,) = detector.predict([mosaic], window=96, overlap=24, min_pixels=4, batch_size=2)
    assert tile["file_name"] == "rgb.tif"
    assert tile["detections"] == json.loads(json.dumps([d.to_json() for d in result.detections]))
    found = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert len(found) == len(result.detections)
    for feature, detection in zip(found, result.detections, strict=True):
        back = shapely.geometry.shape(transform_geom("EPSG:4326", "EPSG:32608", feature["geometry"]))
        assert back.area == pytest.approx(9 * shapely.Polygon(detection.rings[0], detection.rings[1:]).area, rel=1e-3)
        assert feature["properties"]["score"] == detection.score
        assert feature["properties"]["probability"] == detection.probability


def test_holes_are_kept_and_corners_lie_where_the_pixels_lie() -> None:
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]], dtype=np.float32)
    hole = square * np.float32(0.2) + np.float32(4)
    detection = Detection([square, hole], "RTS", 0.9, (0.9,) * 3, np.zeros((3, 4), np.float32), 0.1, 0.1)
    place = Georeference(from_origin(-135, 69, 0.001, 0.001), rasterio.CRS.from_epsg(4326))
    (feature,) = features([("tile", place, detection.to_json())])
    polygon = shapely.geometry.shape(feature["geometry"])
    assert polygon.bounds == pytest.approx((-135, 68.99, -134.99, 69))
    assert len(polygon.interiors) == 1
    assert polygon.exterior.is_ccw  # as RFC 7946 wants it
    assert polygon.area == pytest.approx(0.96e-4)


def test_boxes_on_one_tile_are_answered(
    common: list[str], dataset_dir: Path, stack: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = ["--dataset", str(dataset_dir), "--split", "train"]
    boxes = ["--box", "4,6,30,28", "--box", "20,20,60,60"]
    assert main([*common, *dataset, "--tile", "train_0000.tif", *boxes]) == 0
    (tile,) = written(tmp_path)
    assert tile["boxes"] == [[4, 6, 30, 28], [20, 20, 60, 60]]
    assert len(tile["detections"]) == 2
    assert main([*common, *stack, "--box", "60,60,120,120", "--tta", "flips", "--json"]) == 0
    assert len(written(tmp_path)[0]["detections"]) == 1
    capsys.readouterr()
    for arguments, problem in (
        ([*dataset, *boxes], "--box needs a tile"),
        ([*dataset, *boxes, "--tile", "nowhere.tif"], "has no usable tile 'nowhere.tif'"),
        ([*dataset, "--tile", "train_0000.tif", "--box", "80,0,90,9"], "lies outside its tile of 64 x 64 pixels"),
        ([*dataset, "--tile", "train_0000.tif", "--box", "nan,0,9,9"], "is not four numbers"),
    ):
        assert main([*common, *arguments]) == 1
        assert problem in capsys.readouterr().err


def test_tiles_go_through_in_batches_and_come_out_in_order(
    common: list[str], dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--dataset", str(dataset_dir), "--split", "train", "--batch-size", "3", "--score-threshold", "0.4"]
    assert main([*common, *options, "--geojson", str(tmp_path / "out.geojson")]) == 0
    tiles = written(tmp_path)
    assert [tile["file_name"] for tile in tiles] == [f"train_{number:04d}.tif" for number in range(8)]
    assert all(d["score"] >= 0.4 for tile in tiles for d in tile["detections"])
    assert "100% window 8/8" in capsys.readouterr().err


def test_what_cannot_be_done_is_refused_before_the_model_is_loaded(
    common: list[str],
    dataset_dir: Path,
    mosaic: ChipInput,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "load", lambda *arguments: pytest.fail("the model was loaded"))
    (tmp_path / "file").touch()
    here = write_raster(tmp_path / "here.tif", mosaic.arrays["rgb"], **UTM)
    nowhere = write_raster(tmp_path / "nowhere.tif", mosaic.arrays["rgb"])
    chip, dataset = ["--chip", f"rgb={here}"], ["--dataset", str(dataset_dir)]
    file, folder, below = str(tmp_path / "new.json"), str(tmp_path), str(tmp_path / "file/new.json")
    for arguments, problem in (
        ([*chip, "--out", folder], f"--out {folder} is a folder"),
        ([*chip, "--out", below], f"--out {below} cannot be written"),
        ([*chip, "--geojson", folder], f"--geojson {folder} is a folder"),
        ([*chip, "--out", file, "--geojson", file], "--out and --geojson both name"),
        ([*chip, "--gpkg", file, "--geojson", file], "--gpkg and --geojson both name"),
        (["--chip", f"rgb={nowhere}", "--gpkg", file], "nowhere.tif has no georeference"),
        ([*chip, "--max-overlap", "2"], "largest overlap of 2.0"),
        (["--chip", f"rgb={nowhere}", "--geojson", file], "nowhere.tif has no georeference"),
        ([*chip, "--tolerance", "nan"], "tolerance of nan"),
        ([*chip, "--score-threshold", "nan"], "score threshold of nan"),
        ([*chip, "--min-pixels", "-1"], "smallest size of -1"),
        ([*chip, "--tile", "a.tif"], "--tile and --split choose tiles of a dataset"),
        ([*chip, "--split", "test"], "--tile and --split choose tiles of a dataset"),
        ([*chip, "--box", "1,1,9,9", "--window", "64"], "--window and --overlap are for searching"),
        ([*chip, "--box", "1,1,9,9", "--overlap", "8"], "--window and --overlap are for searching"),
        ([*dataset, "--box", "1,1,9,9"], "--box needs a tile"),
    ):
        assert main([*common, *arguments]) == 1, arguments
        printed = capsys.readouterr().err
        assert printed.startswith("error: ")
        assert problem in printed
        assert printed.count("\n") == 1


def test_boxes_may_begin_left_of_the_tile(
    common: list[str], dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tile = ["--dataset", str(dataset_dir), "--split", "train", "--tile", "train_0000.tif"]
    assert main([*common, *tile, "--box=-5,-5,20,20", "--out", str(tmp_path / "new/out.json")]) == 0
    assert json.loads((tmp_path / "new/out.json").read_text())["tiles"][0]["boxes"] == [[-5, -5, 20, 20]]
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert "--box=-5,..." in capsys.readouterr().out


def test_a_full_disk_is_told_of_the_file_that_was_asked_for(
    common: list[str],
    stack: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(stream: Any, items: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs, "_write_list", full)
    assert main([*common, *stack, "--box", "4,4,40,40"]) == 1
    assert f"error: {tmp_path / 'out.json'}: No space left" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out.json*"))


def test_a_raster_that_is_another_format_by_content_has_no_place(tmp_path: Path) -> None:
    virtual = tmp_path / "here.tif"
    virtual.write_text('<VRTDataset rasterXSize="2" rasterYSize="2"><SRS>EPSG:4326</SRS></VRTDataset>')
    with pytest.raises(DatasetError, match=r"here\.tif cannot be read \(it is not a GeoTIFF"):
        read_georeference(virtual)


def test_bad_rasters_are_refused_in_one_sentence(
    common: list[str], mosaic: ChipInput, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rgb = write_raster(tmp_path / "rgb.tif", mosaic.arrays["rgb"], **UTM)
    nowhere = write_raster(tmp_path / "nowhere.tif", mosaic.arrays["rgb"])
    small = write_raster(tmp_path / "small.tif", np.zeros((1, 64, 64)), **UTM)
    elsewhere = write_raster(
        tmp_path / "elsewhere.tif", np.zeros((1, 128, 128)), crs=UTM["crs"], transform=from_origin(0, 0, 3, 3)
    )
    world = ["--geojson", str(tmp_path / "out.geojson")]
    for arguments, problem in (
        (["--chip", f"ndvi={rgb}"], "is given as 'ndvi', but the model takes rgb, relative_elevation"),
        (["--chip", f"rgb={rgb}", "--chip", f"relative_elevation={small}"], "small.tif is not on the grid of"),
        (["--chip", f"rgb={rgb}", "--chip", f"relative_elevation={elsewhere}"], "elsewhere.tif is not on the grid of"),
        (["--chip", f"rgb={small}"], "small.tif has 1 bands"),
        (["--chip", f"rgb={tmp_path / 'none.tif'}"], "none.tif does not exist: check the path"),
        (["--chip", f"rgb={nowhere}", *world], "nowhere.tif has no georeference"),
        (["--chip", f"rgb={rgb}", "--window", "8"], "window of 8 x 8 pixels makes no sense"),
        (["--chip", f"rgb={rgb}", "--batch-size", "0"], "batch size of 0 makes no sense"),
        (["--chip", f"rgb={rgb}", "--chip", f"rgb={small}"], "small.tif for 'rgb': give one"),
    ):
        assert main([*common, *arguments]) == 1, arguments
        printed = capsys.readouterr().err.splitlines()[-1]
        assert printed.startswith("error: ")
        assert problem in printed
