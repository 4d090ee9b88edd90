"""What pixels mean is the same for the detector's chips and the catalog's scenes."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image, ImageOps
from rasterio.enums import ColorInterp

from contracts.pixels import hides_imagery
from ml_backend.detector import DatasetError, ModalitySpec
from ml_backend.detector.chips import read_chip

HEIGHT, WIDTH = 48, 64
PLACE = Affine(10, 0, 500_000, 0, -10, 7_600_000)
RGB = ModalitySpec("rgb", ("red", "green", "blue"))
ONE = ModalitySpec("one", ("a",))


def texture(bands: int = 3, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Pixels that are a picture: no two alike."""
    return np.random.default_rng(seed).integers(40, 200, (bands, HEIGHT, WIDTH)).astype(dtype)


def write(path: Path, array: np.ndarray, *, alpha: np.ndarray | None = None, mask=None, scales=None, **profile) -> Path:
    layers = array if alpha is None else np.concatenate([array, alpha[None].astype(array.dtype)])
    profile = {"driver": "GTiff", "crs": "EPSG:32608", "transform": PLACE, **profile}
    height, width = array.shape[1:]
    with rasterio.open(path, "w", height=height, width=width, count=len(layers), dtype=layers.dtype, **profile) as file:
        file.write(layers)
        if alpha is not None:
            names = ["red", "green", "blue"] if len(array) == 3 else ["gray"]
            file.colorinterp = [*(ColorInterp[name] for name in names), ColorInterp.alpha]
        if mask is not None:
            file.write_mask(mask)
        if scales is not None:
            file.scales, file.offsets = [[pair[i] for pair in scales] for i in (0, 1)]
    return path


def some(rows: slice = slice(0, 20)) -> np.ndarray:
    """A part of the picture, where something is different."""
    part = np.zeros((HEIGHT, WIDTH), bool)
    part[rows] = True
    return part


def dark_water(dtype: str, nodata: float) -> tuple[np.ndarray, dict, np.ndarray]:
    """One band has the nodata value in the left half, all bands have it in the top rows."""
    array = texture(dtype=dtype)
    array[2, :, : WIDTH // 2] = nodata
    array[:, :20] = nodata
    one_is_enough = np.dtype(dtype).kind != "u"
    empty = some() | (np.arange(WIDTH) < WIDTH // 2) if one_is_enough else some()
    return array, {"nodata": nodata}, ~empty


def blank_under_alpha() -> tuple[np.ndarray, dict, np.ndarray]:
    array = texture()
    array[:, some()] = 0
    return array, {"alpha": np.where(some(), 0, 255)}, ~some()


def label_in_alpha() -> tuple[np.ndarray, dict, np.ndarray]:
    return texture(), {"alpha": np.where(some(), 255, 0)}, np.ones((HEIGHT, WIDTH), bool)


def never_measured(value: float) -> tuple[np.ndarray, dict, np.ndarray]:
    array = texture(dtype="float32")
    array[1, some()] = value
    return array, {}, ~some()


CASES = {
    "0 in one unsigned band is a colour": dark_water("uint8", 0),
    "65535 in one unsigned band is a colour": dark_water("uint16", 65535),
    "-9999 in one float band is nothing": dark_water("float32", -9999),
    "-32768 in one signed band is nothing": dark_water("int16", -32768),
    "alpha over blank pixels is validity": blank_under_alpha(),
    "alpha over a picture is a label mask": label_in_alpha(),
    "a file's own mask is validity": (texture(), {"mask": ~some()}, ~some()),
    "NaN": never_measured(np.nan),
    "infinity": never_measured(np.inf),
    "nodata that nobody declared": never_measured(-3.4e38),
}


@pytest.mark.parametrize(("array", "options", "valid"), CASES.values(), ids=CASES)
def test_a_chip_is_valid_where_the_rule_says(tmp_path, array, options, valid):
    values, got = read_chip(write(tmp_path / "a.tif", array, **options), RGB)

    np.testing.assert_array_equal(got, valid)
    np.testing.assert_array_equal(values[:, valid], array[:, valid])


@pytest.mark.django_db
@pytest.mark.parametrize(("array", "options", "valid"), CASES.values(), ids=CASES)
def test_a_scene_is_valid_where_its_chip_would_be(tmp_path, settings, array, options, valid):
    from datetime import date

    from rasterio.windows import Window

    from thawloop.catalog.rasters import open_raster
    from thawloop.catalog.resampling import read_window
    from thawloop.catalog.scene_options import SceneOptions
    from thawloop.catalog.services import define_modality, register_scene

    settings.THAWLOOP_DATA_ROOTS = [str(tmp_path)]
    rgb = define_modality("rgb3", bands=["red", "green", "blue"], range_min=0, range_max=255)
    file = write(tmp_path / "a.tif", array, **options)
    scene, _ = register_scene(
        str(file), modality=rgb, acquired=date(2021, 7, 1), options=SceneOptions(band_indexes=[1, 2, 3])
    )
    with open_raster(scene.uri) as dataset:
        values, _ = read_window(dataset, scene, Window(0, 0, WIDTH, HEIGHT), 1)

    chip, chip_valid = read_chip(file, RGB)
    np.testing.assert_array_equal(~np.isnan(values[0]), valid)
    np.testing.assert_array_equal(chip_valid, valid)
    np.testing.assert_array_equal(values[:, valid], chip[:, valid])
    assert scene.valid_share == pytest.approx(valid.mean())


def test_nodata_declared_by_one_band_holds_for_its_neighbours(tmp_path):
    """As in a VRT of single-band files of which one declares it: dark water has no blue, and is seen."""
    array, _, valid = dark_water("uint8", 0)
    parts = [write(tmp_path / f"{i}.tif", array[i : i + 1], **({"nodata": 0} if i == 2 else {})) for i in range(3)]
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i + 1}">{"<NoDataValue>0</NoDataValue>" if i == 2 else ""}'
        f"<SimpleSource><SourceFilename>{part}</SourceFilename></SimpleSource></VRTRasterBand>"
        for i, part in enumerate(parts)
    )
    place = ", ".join(str(v) for v in PLACE.to_gdal())
    vrt = tmp_path / "a.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><SRS>EPSG:32608</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )
    from contracts.pixels import declared_valid

    with rasterio.open(vrt) as file:
        assert file.nodatavals == (None, None, 0.0)
        np.testing.assert_array_equal(declared_valid(file, [1, 2, 3], file.read()), valid)


def test_nodata_of_dataset_json_replaces_the_files_own(tmp_path):
    array = texture(1, "float32")
    array[:, some()] = -1
    array[:, 30:] = -2
    file = write(tmp_path / "a.tif", array, nodata=-2)

    _, valid = read_chip(file, ModalitySpec("one", ("a",), nodata=-1))

    np.testing.assert_array_equal(valid, ~some())


def test_scale_and_offset_of_a_chip_are_applied_per_band(tmp_path):
    array = texture(3, "int16")
    file = write(tmp_path / "a.tif", array, scales=[(0.1, 0), (1, -5), (2, 1)])

    values, _ = read_chip(file, RGB)

    expected = [array[0] * 0.1, array[1] - 5.0, array[2] * 2.0 + 1]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_people_see_them(tmp_path, suffix, orientation):
    seen = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    seen[8:24, 8:40] = 220
    stored = next(
        turned
        for turned in (np.rot90(flipped, k) for flipped in (seen, seen[:, ::-1]) for k in range(4))
        if np.array_equal(_as_shown(turned, orientation), seen)
    )
    file, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(file, quality=98, exif=exif)

    values, valid = read_chip(file, RGB, (HEIGHT, WIDTH))

    assert valid.all()
    np.testing.assert_allclose(values.transpose(1, 2, 0), np.asarray(ImageOps.exif_transpose(Image.open(file))), atol=3)
    assert values[:, 10:22, 10:38].min() > 200


def _as_shown(stored: np.ndarray, orientation: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(stored))
    picture.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


def test_a_picture_declared_as_stored_and_shown_turned_is_refused(tmp_path):
    file, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(texture().transpose(1, 2, 0)).save(file, exif=exif)

    with pytest.raises(DatasetError, match=r"a\.jpg is declared as 64 x 48 pixels, as stored.*EXIF.*48 x 64"):
        read_chip(file, RGB, (HEIGHT, WIDTH))


def test_a_georeference_counts_instead_of_the_orientation(tmp_path):
    file, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(texture().transpose(1, 2, 0)).save(file, exif=exif)
    (tmp_path / "a.jgw").write_text("10\n0\n0\n-10\n500005\n7599995\n")
    with rasterio.open(file) as raster:
        stored = raster.read()

    values, _ = read_chip(file, RGB)

    np.testing.assert_array_equal(values, stored)


@pytest.mark.parametrize(
    "block", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\x08\0\0\0\x01\0\x12\x01"]
)
def test_a_broken_exif_block_turns_nothing(tmp_path, block):
    file = tmp_path / "a.png"
    Image.fromarray(texture().transpose(1, 2, 0)).save(file, exif=b"Exif\0\0" + block)

    values, _ = read_chip(file, RGB)

    np.testing.assert_array_equal(values, texture())


def test_transparent_and_grey_pictures_keep_their_bands(tmp_path):
    pixels = texture()
    pixels[:, some()] = 0
    alpha = np.where(some(), 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([*pixels, alpha]), "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([pixels[0], alpha]), "LA").save(tmp_path / "la.png")

    for name, modality in (("rgba.png", RGB), ("la.png", ONE)):
        values, valid = read_chip(tmp_path / name, modality)
        assert len(values) == len(modality.bands)
        np.testing.assert_array_equal(valid, ~some())


@pytest.mark.parametrize(
    ("hidden", "picture"),
    [("blank", False), ("white", False), ("traces of compression", False), ("picture", True), ("half picture", True)],
)
def test_what_a_mask_hides_tells_what_it_is(hidden, picture):
    pixels, under = texture(), some()
    noise = np.random.default_rng(1).integers(0, 4, pixels.shape).astype("uint8")
    fill = {"blank": 0, "white": 255, "traces of compression": noise, "picture": pixels}
    if hidden == "half picture":
        pixels[:, 8:20] = 0
    else:
        pixels = np.where(under, fill[hidden], pixels)

    assert hides_imagery(pixels, ~under) is picture


def test_a_mask_that_hides_everything_hides_a_picture_if_there_is_one():
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    assert hides_imagery(texture(), nothing)
    assert not hides_imagery(np.zeros_like(texture()), nothing)
    assert not hides_imagery(texture(), ~nothing)
