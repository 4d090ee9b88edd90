"""The pixels of tiles."""

import os
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from thawloop.catalog.chips import ChipReader, read_chip, write_chip
from thawloop.catalog.errors import ChipUnreadable
from thawloop.catalog.geometry import tile_bounds, tile_transform
from thawloop.catalog.models import Modality, Scene
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import define_modality, register_scene

pytestmark = pytest.mark.django_db

ORIGIN = Affine(10, 0, 500_000, 0, -10, 7_600_000)


def hills(height: int, width: int, bands: int = 1) -> np.ndarray:
    """Smooth, positive and different in every band."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([100 + 40 * np.sin(rows / 9 + b) + 30 * np.cos(columns / 7 - b) for b in range(bands)])


def reference(path, tile, resampling, **options) -> np.ma.MaskedArray:
    """What rasterio's WarpedVRT makes of a file on the tile's grid."""
    size = tile.grid.tile_size
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file,
            crs=f"EPSG:{tile.grid.srid}",
            transform=tile_transform(tile),
            width=size,
            height=size,
            resampling=Resampling[resampling],
            **{"XSCALE": 1, "YSCALE": 1, **options},
        ) as vrt,
    ):
        return vrt.read(masked=True)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize(
    ("srid", "x", "y", "pixel_size"), [(3413, 0, 0, 10), (32608, 503_000, 7_598_000, 7), (3857, 0, 0, 25)]
)
def test_chips_equal_warped_vrt(make_scene, make_tile, make_modality, srid, x, y, pixel_size, resampling):
    modality = make_modality("m", ("a", "b"), resampling=resampling)
    scene = make_scene(hills(400, 400, 2), modality=modality)
    if srid != 32608:
        x, y = _centre(scene, srid)
    tile = make_tile(x, y, srid=srid, pixel_size=pixel_size)

    chip = read_chip(tile, [modality])

    expected = reference(scene.uri, tile, resampling, src_nodata=-1, nodata=-1)
    assert chip.valid["m"].all()
    np.testing.assert_allclose(chip.arrays["m"], expected.filled(np.nan), atol=2e-3)
    assert chip.arrays["m"].dtype == np.float32


def _centre(scene: Scene, srid: int) -> tuple[float, float]:
    point = scene.footprint.centroid
    point.transform(srid)
    return point.x, point.y


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dx=st.integers(-3000, 3000), dy=st.integers(-3000, 3000), pixel=st.sampled_from([3, 7, 10]), hole=st.booleans())
def test_chips_equal_warped_vrt_anywhere_at_the_edges_of_a_scene(
    make_scene, make_tile, make_modality, dx, dy, pixel, hole
):
    modality = make_modality("m", ("a",), resampling="bilinear")
    array = hills(300, 300)
    if hole:
        array[:, 100:180, 120:200] = -9999
    scene = make_scene(array, modality=modality, nodata=-9999, name=f"h{hole}.tif", acquired=date(2021, 1, 1 + hole))
    Scene.objects.exclude(pk=scene.pk).delete()
    x, y = _centre(scene, 3413)
    tile = make_tile(x + dx, y + dy, srid=3413, pixel_size=pixel)

    chip = read_chip(tile, [modality])

    expected = reference(scene.uri, tile, "bilinear")[0]
    valid = chip.valid.get("m", np.zeros(expected.shape, bool))
    np.testing.assert_array_equal(valid, ~np.ma.getmaskarray(expected))
    if valid.any():
        np.testing.assert_allclose(chip.arrays["m"][0][valid], expected.data[valid], atol=2e-3)


def test_a_somewhat_coarser_grid_smooths_as_much_as_the_pixels_grow(make_scene, make_tile, make_modality):
    modality = make_modality("m", ("a",), resampling="bilinear")
    scene = make_scene(hills(400, 400), modality=modality)
    tile = make_tile(502_000, 7_598_000, pixel_size=14)

    chip = read_chip(tile, [modality])

    expected = reference(scene.uri, tile, "bilinear", src_nodata=-1, nodata=-1, XSCALE=10 / 14, YSCALE=10 / 14)
    np.testing.assert_allclose(chip.arrays["m"], expected.filled(np.nan), atol=2e-3)


def test_an_aligned_scene_is_copied_pixel_by_pixel(make_scene, make_tile):
    array = np.arange(3 * 100 * 100, dtype=np.uint16).reshape(3, 100, 100) + 1
    scene = make_scene(array, transform=ORIGIN)
    tile = make_tile(500_000 + 100, 7_600_000 - 300)
    left, _, _, top = tile_bounds(tile)
    column, row = round((left - 500_000) / 10), round((7_600_000 - top) / 10)

    chip = read_chip(tile, [scene.modality])

    expected = np.full((3, 64, 64), np.nan, np.float32)
    for y in range(64):
        for x in range(64):
            if 0 <= row + y < 100 and 0 <= column + x < 100:
                expected[:, y, x] = array[:, row + y, column + x]
    np.testing.assert_array_equal(chip.arrays[scene.modality.name], expected)
    np.testing.assert_array_equal(chip.valid[scene.modality.name], ~np.isnan(expected[0]))


def test_a_chip_does_not_depend_on_what_was_read_before(make_scene, make_tile, make_modality):
    modality = make_modality("m", ("a",), resampling="cubic")
    scene = make_scene(hills(400, 400), modality=modality)
    x, y = _centre(scene, 3413)
    tiles = [make_tile(x + 640 * i, y, srid=3413) for i in range(3)]

    with ChipReader([modality]) as reader:
        together = [reader.read(tile) for tile in tiles]
    alone = [read_chip(tile, [modality]) for tile in reversed(tiles)][::-1]

    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.arrays["m"], b.arrays["m"])


def test_strong_reduction_averages_instead_of_skipping(make_scene, make_tile, make_modality):
    modality = make_modality("m", ("a",), resampling="bilinear")
    stripes = np.tile(np.array([0, 200], np.uint8), (1600, 800))
    make_scene(stripes, modality=modality, transform=Affine(1, 0, 500_000, 0, -1, 7_600_000))
    tile = make_tile(500_640, 7_599_000, pixel_size=20, tile_size=32)

    chip = read_chip(tile, [modality])

    np.testing.assert_allclose(chip.arrays["m"], 100, atol=1)


def test_reduction_keeps_overridden_nodata_out(make_scene, make_tile, make_modality):
    modality = make_modality("m", ("a",), resampling="bilinear")
    array = np.full((1600, 1600), 50, np.int16)
    array[::3, ::5] = -77
    scene = make_scene(
        array, modality=modality, transform=Affine(1, 0, 500_000, 0, -1, 7_600_000), register={"nodata": -77}
    )
    tile = make_tile(500_640, 7_599_000, pixel_size=20, tile_size=32)

    chip = read_chip(tile, [scene.modality])

    np.testing.assert_allclose(chip.arrays["m"][:, chip.valid["m"]], 50)
    assert chip.valid["m"].mean() > 0.9


GOOD = 7.0


@pytest.mark.parametrize(
    ("dtype", "bad", "raster", "register"),
    [
        ("float32", np.nan, {}, {}),
        ("float32", np.inf, {}, {}),
        ("float32", -np.inf, {"nodata": -np.inf}, {}),
        ("float64", -1.7e308, {"nodata": -1.7e308}, {}),
        ("float32", -3.4e38, {"nodata": float(np.float32(-3.4e38))}, {}),
        ("float32", -9999.9, {"nodata": -9999.9}, {}),
        ("int16", -9999, {"nodata": -9999}, {}),
        ("uint8", 0, {"nodata": 0}, {}),
        ("uint16", 65535, {"nodata": 65535}, {}),
        ("int32", -(2**31), {"nodata": -(2**31)}, {}),
        ("int16", -32768, {}, {"nodata": -32768}),
        ("float32", np.nan, {"nodata": -1}, {}),
    ],
)
def test_every_kind_of_nodata_is_invalid(make_scene, make_tile, dtype, bad, raster, register):
    array = np.full((100, 100), GOOD, dtype)
    array[40:60, 40:60] = bad
    scene = make_scene(array, register=register, **raster)
    tile = make_tile(500_000, 7_599_400)

    for pixels in (tile, make_tile(500_100, 7_599_400, pixel_size=7)):
        chip = read_chip(pixels, [scene.modality])
        values, valid = chip.arrays[scene.modality.name][0], chip.valid[scene.modality.name]
        assert 0 < (~valid).sum() < valid.size
        np.testing.assert_allclose(values[valid], GOOD)
        assert np.isnan(values[~valid]).all()


def test_a_mask_band_says_what_is_valid(make_scene, make_tile, make_modality):
    array = np.full((2, 100, 100), 9, np.uint8)
    array[1, :50] = 0
    scene = make_scene(array, modality=make_modality("m", ("a",)), register={"band_indexes": [1], "mask_band": 2})
    tile = make_tile(500_000, 7_599_400)

    assert (~read_chip(tile, [scene.modality]).valid["m"]).any()


def test_the_files_own_mask_says_what_is_valid(make_scene, make_tile):
    mask = np.full((100, 100), 255, np.uint8)
    mask[30:50] = 0
    scene = make_scene(np.full((3, 100, 100), 9, np.uint8), mask=mask)
    tile = make_tile(500_000, 7_599_400)

    valid = read_chip(tile, [scene.modality]).valid[scene.modality.name]
    top = round((7_600_000 - tile_bounds(tile)[3]) / 10)
    np.testing.assert_array_equal(valid[:, 0] if valid[:, 0].any() else valid[:, -1], mask[top : top + 64, 0] > 0)


def test_an_alpha_band_says_what_is_valid(make_scene, make_tile, make_modality):
    array = np.full((4, 100, 100), 200, np.uint8)
    array[3, :, :20] = 0
    scene = make_scene(array, modality=make_modality(), photometric="rgb", alpha="yes")
    assert scene.band_indexes == [1, 2, 3]
    tile = make_tile(500_000, 7_599_400)

    valid = read_chip(tile, [scene.modality]).valid["rgb"]
    assert 0 < valid.sum() < valid.size


def test_black_in_one_band_is_a_colour_and_in_all_bands_nothing(make_scene, make_tile):
    array = np.full((3, 100, 100), 9, np.uint8)
    array[0] = 0
    array[:, 50:] = 0
    scene = make_scene(array, nodata=0)
    tile = make_tile(500_000, 7_599_400)

    valid = read_chip(tile, [scene.modality]).valid[scene.modality.name]
    assert valid.any()
    assert not valid.all()


def test_a_byte_picture_without_nodata_is_valid_everywhere(make_scene, make_tile):
    scene = make_scene(np.zeros((3, 200, 200), np.uint8))
    tile = make_tile(500_700, 7_599_000)

    assert read_chip(tile, [scene.modality]).valid[scene.modality.name].all()


def test_scale_and_offset_give_the_modalitys_unit(make_scene, make_tile):
    scene = make_scene(np.full((1, 200, 200), 3000, np.uint16), nodata=0, register={"scale": 0.0001, "offset": -0.1})
    tile = make_tile(500_700, 7_599_000)

    np.testing.assert_allclose(read_chip(tile, [scene.modality]).arrays["m1"], 0.2, rtol=1e-6)


def test_bands_come_in_the_modalitys_order(make_scene, make_tile, make_modality):
    array = np.stack([np.full((200, 200), value, np.uint8) for value in (1, 2, 3, 4)])
    make_scene(array, modality=make_modality(), descriptions=("blue", "green", "red", "nir"))
    tile = make_tile(500_700, 7_599_000)

    assert read_chip(tile, [Modality.objects.get(name="rgb")]).arrays["rgb"][:, 0, 0].tolist() == [3, 2, 1]


def test_the_newest_scene_of_the_period_lies_on_top_and_older_ones_fill_its_gaps(make_scene, make_tile, make_modality):
    modality = make_modality("m", ("a",))
    gappy = np.full((200, 200), 30, np.uint8)
    gappy[:, ::2] = 0
    make_scene(np.full((200, 200), 10, np.uint8), modality=modality, name="old.tif", acquired=date(2021, 5, 1))
    make_scene(gappy, modality=modality, name="new.tif", acquired=date(2021, 9, 1), nodata=0)
    make_scene(np.full((200, 200), 99, np.uint8), modality=modality, name="other.tif", acquired=date(2020, 9, 1))
    tile = make_tile(500_700, 7_599_000)

    values = read_chip(tile, [modality]).arrays["m"][0]

    assert set(np.unique(values)) == {10, 30}


def test_a_static_modality_serves_every_period_nearest_first(make_scene, make_tile, make_modality):
    dem = make_modality("dem", ("elevation",), is_static=True)
    for year, height in ((2010, 10), (2019, 19), (2029 - 4, 25)):
        make_scene(np.full((200, 200), height, np.uint8), modality=dem, name=f"{year}.tif", acquired=date(year, 1, 1))
    tile = make_tile(500_700, 7_599_000)

    assert read_chip(tile, [dem]).arrays["dem"].max() == 19


def test_a_modality_without_pixels_here_is_absent(make_scene, make_tile, make_modality):
    scene = make_scene(np.zeros((200, 200), np.uint8), nodata=0)
    far = make_modality("far", ("a",))
    tile = make_tile(500_700, 7_599_000)

    chip = read_chip(tile, [scene.modality, far])
    assert chip.arrays == chip.valid == {}


def test_a_derived_modality_is_valid_where_all_it_reads_is(make_scene, make_tile, make_modality):
    nir, red = np.full((200, 200), 3, np.float32), np.full((200, 200), 1, np.float32)
    nir[:, :80], red[:80] = np.nan, -nir[0, -1]
    make_scene(np.stack([red, red, red]), modality=make_modality(), name="rgb.tif")
    make_scene(nir, modality=make_modality("nir", ("nir",)), name="nir.tif")
    ndvi = define_modality(
        "ndvi", bands=["ndvi"], range_min=-1, range_max=1, kind="index", derivation="expression",
        expression="(nir.nir - rgb.red) / (nir.nir + rgb.red)",
    )  # fmt: skip
    tile = make_tile(500_700, 7_599_000)

    chip = read_chip(tile, [ndvi, Modality.objects.get(name="nir")])

    assert set(np.unique(chip.arrays["ndvi"][:, chip.valid["ndvi"]])) == {0.5}
    assert chip.valid["ndvi"].sum() < chip.valid["nir"].sum()


def test_a_file_that_was_damaged_later_is_named_with_the_tile(make_scene, make_tile):
    scene = make_scene(hills(2000, 2000, 1), tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    tile = make_tile(510_000, 7_590_000)
    data = bytearray(Path(scene.uri).read_bytes())
    data[len(data) // 4 : -len(data) // 4] = b"\xff" * len(data[len(data) // 4 : -len(data) // 4])
    Path(scene.uri).write_bytes(data)

    with pytest.raises(ChipUnreadable, match=rf"{tile.key}.*scene\.tif"):
        read_chip(tile, [scene.modality])


def test_a_file_that_is_gone_is_named_with_the_tile(make_scene, make_tile, tmp_path):
    scene = make_scene(hills(200, 200))
    tile = make_tile(500_700, 7_599_000)
    (tmp_path / "scene.tif").unlink()

    with pytest.raises(ChipUnreadable, match=tile.key):
        read_chip(tile, [scene.modality])


def test_what_was_read_before_is_not_decoded_again(make_scene, make_tile):
    """GDAL keeps blocks, and the next reader gets the same open file: what changes behind its back goes unseen."""
    scene = make_scene(hills(600, 600), tiled=True, blockxsize=256, blockysize=256)
    tile = make_tile(500_700, 7_599_000)
    first = read_chip(tile, [scene.modality]).arrays["m1"]
    status = Path(scene.uri).stat()
    with open(scene.uri, "r+b") as file:
        file.seek(1500)
        file.write(bytes(status.st_size - 1500))
    os.utime(scene.uri, ns=(status.st_atime_ns, status.st_mtime_ns))

    np.testing.assert_array_equal(read_chip(tile, [scene.modality]).arrays["m1"], first)
    os.utime(scene.uri)
    assert not np.array_equal(read_chip(tile, [scene.modality]).arrays["m1"], first)


def test_a_file_that_changed_between_two_readers_is_opened_anew(make_scene, make_tile, write_raster):
    scene = make_scene(np.full((200, 200), 10, np.uint8))
    tile = make_tile(500_700, 7_599_000)
    assert read_chip(tile, [scene.modality]).arrays["m1"].max() == 10

    Path(scene.uri).unlink()
    write_raster(np.full((200, 200), 20, np.uint8))
    assert read_chip(tile, [scene.modality]).arrays["m1"].max() == 20

    Path(scene.uri).unlink()
    with pytest.raises(ChipUnreadable):
        read_chip(tile, [scene.modality])


def test_files_stay_below_their_roots_though_they_are_open(make_scene, make_tile, settings, tmp_path):
    scene = make_scene(np.full((200, 200), 10, np.uint8))
    tile = make_tile(500_700, 7_599_000)
    read_chip(tile, [scene.modality])
    settings.THAWLOOP_DATA_ROOTS = [str(tmp_path / "elsewhere")]

    with pytest.raises(ChipUnreadable):
        read_chip(tile, [scene.modality])


def test_readers_at_the_same_time_do_not_share_an_open_file(make_scene, make_tile):
    scene = make_scene(hills(200, 200))
    tile = make_tile(500_700, 7_599_000)

    with ChipReader([scene.modality]) as one, ChipReader([scene.modality]) as other:
        one.read(tile), other.read(tile)
        files = [reader._files._open[scene.uri].dataset for reader in (one, other)]

    assert files[0] is not files[1]


def test_a_file_that_was_swapped_for_another_is_refused(make_scene, make_tile, write_raster):
    scene = make_scene(hills(200, 200))
    tile = make_tile(500_700, 7_599_000)
    write_raster(hills(201, 200))

    with pytest.raises(ChipUnreadable, match="registered"):
        read_chip(tile, [scene.modality])


def test_a_rotated_scene_is_read_through_its_transform(make_scene, make_tile):
    rotated = from_origin(500_000, 7_600_000, 10, 10) @ Affine.rotation(30)
    scene = make_scene(hills(300, 300), transform=rotated)
    tile = make_tile(*(rotated @ (150, 150)))

    chip = read_chip(tile, [scene.modality])

    expected = reference(scene.uri, tile, "nearest", src_nodata=-1, nodata=-1)
    np.testing.assert_allclose(chip.arrays["m1"], expected.filled(np.nan), atol=1e-3)


def test_written_chips_are_the_dataset_contract_and_reproducible(tmp_path, make_scene, make_tile):
    array = hills(200, 200, 2)
    array[:, :70] = np.nan
    scene = make_scene(array)
    tile = make_tile(500_700, 7_599_000)
    chip = read_chip(tile, [scene.modality])
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]

    for path in paths:
        write_chip(path, chip.arrays["m2"], chip.valid["m2"], chip.transform, chip.crs)

    with rasterio.open(paths[0]) as file:
        assert file.dtypes == ("float32", "float32")
        assert np.isnan(file.nodata)
        assert file.crs.to_epsg() == 32608
        assert file.transform == tile_transform(tile)
        np.testing.assert_array_equal(file.read(), chip.arrays["m2"])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_same_file_serves_two_modalities(make_tile, make_modality, write_raster):
    path = str(write_raster(np.stack([np.full((200, 200), v, np.uint16) for v in (1, 2, 3, 4)])))
    rgb, nir = make_modality(), make_modality("nir", ("nir",))
    register_scene(path, modality=rgb, acquired=date(2021, 6, 1), options=SceneOptions(band_indexes=[3, 2, 1]))
    register_scene(path, modality=nir, acquired=date(2021, 6, 1), options=SceneOptions(band_indexes=[4]))

    chip = read_chip(make_tile(500_700, 7_599_000), [rgb, nir])

    assert chip.arrays["rgb"][:, 5, 5].tolist() == [3, 2, 1]
    assert chip.arrays["nir"][:, 5, 5].tolist() == [4]
