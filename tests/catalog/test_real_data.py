"""Real rasters: the Peel slumps, the Kootenay crowns, Everest."""

from datetime import date

import numpy as np
import pytest
from shapely.geometry import box

from tests.catalog.periods import YEAR
from thawloop.catalog.chips import ChipReader
from thawloop.catalog.geometry import to_shapely
from thawloop.catalog.models import Scene, Tile
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import create_tiles, define_grid, define_modality, define_region, register_scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def imagery(real_data, settings):
    settings.THAWLOOP_DATA_ROOTS = [str(real_data)]
    return real_data / "imagery"


def modality(name, *bands, **fields):
    return define_modality(name, **{"bands": list(bands), "range_min": 0, "range_max": 255, **fields})


def tiles_over(scene: Scene, grid) -> list[Tile]:
    region = define_region(f"over-{scene.pk}-{grid.name}", to_shapely(scene.footprint))
    create_tiles(grid, region, **YEAR)
    return list(Tile.objects.filter(grid=grid).select_related("grid").order_by("row", "col"))


def test_peel_gives_colour_infrared_and_ndvi_of_two_sensors(imagery):
    folder = imagery / "peel_rts" / "setup" / "data"
    sentinel = str(folder / "S2_20210821T210019_20210821T210020_T08WMA.tif")
    landsat = str(folder / "L8_LC08_139232_20210721.tif")
    rgb = modality("rgb", "red", "green", "blue", range_max=1)
    nir = modality("nir", "nir", range_max=1)
    thermal = modality("swir", "swir", range_max=1e5)
    ndvi = modality(
        "ndvi", "ndvi", range_min=-1, range_max=1, kind="index", derivation="expression",
        expression="(nir.nir - rgb.red) / (nir.nir + rgb.red)",
    )  # fmt: skip
    august = date(2021, 8, 21)
    colour, infrared = SceneOptions(band_indexes=[3, 2, 1], scale=1e-4), SceneOptions(band_indexes=[4], scale=1e-4)
    scene, _ = register_scene(sentinel, modality=rgb, acquired=august, options=colour)
    register_scene(sentinel, modality=nir, acquired=august, options=infrared)
    register_scene(landsat, modality=thermal, acquired=date(2021, 7, 21), options=SceneOptions(band_indexes=[7]))

    tiles = tiles_over(scene, define_grid("peel", 32608, 10, 64))
    with ChipReader([rgb, nir, ndvi, thermal]) as reader:
        chips = [reader.read(tile) for tile in tiles]

    assert len(chips) == 16
    assert to_shapely(scene.footprint).within(box(-135.8, 67.9, -135.5, 68.2))
    assert all(set(chip.arrays) == {"rgb", "nir", "ndvi", "swir"} for chip in chips)
    middle = chips[5]
    assert middle.valid["ndvi"].all()
    assert middle.valid["swir"].mean() > 0.95
    red, near = middle.arrays["rgb"][0], middle.arrays["nir"][0]
    np.testing.assert_allclose(middle.arrays["ndvi"][0], (near - red) / (near + red), rtol=1e-5)


def test_kootenay_keeps_colour_and_height_in_register_and_the_empty_corner_empty(imagery):
    folder = imagery / "kootenay_rgb_chm_crowns"
    rgb = modality("rgb", "red", "green", "blue")
    height = modality("canopy_height", "height", range_max=60, is_static=True)
    scene, _ = register_scene(str(folder / "kootenay_ortho_rgb.tif"), modality=rgb, acquired=date(2021, 7, 1))
    register_scene(str(folder / "kootenayCHM.tif"), modality=height, acquired=date(2015, 7, 1))
    assert scene.band_indexes == [1, 2, 3]

    tiles = tiles_over(scene, define_grid("kootenay", 32611, 0.5, 64))
    with ChipReader([rgb, height]) as reader:
        chips = [reader.read(tile) for tile in tiles]

    heights = np.concatenate([c.arrays["canopy_height"][0][c.valid["canopy_height"]] for c in chips if c.arrays])
    valid = np.concatenate([c.valid["canopy_height"].ravel() for c in chips if "canopy_height" in c.valid])
    assert 0 <= heights.min() <= heights.max() < 80  # nothing of -1.7e308 has leaked into the metres
    assert 0 < (~valid).mean() < 0.7
    # Same grid and origin: chips are the file's own pixels.
    colours = np.concatenate([c.arrays["rgb"].ravel() for c in chips if "rgb" in c.arrays])
    assert set(np.unique(colours[~np.isnan(colours)])) <= set(range(256))


def test_everest_is_read_on_a_foreign_grid(imagery):
    folder = imagery / "everest_landsat_rgi"
    rgb, nir = modality("rgb", "red", "green", "blue"), modality("nir", "nir")
    colour, _ = register_scene(str(folder / "LE71400412000304SGS00_RGB.tif"), modality=rgb, acquired=date(2021, 10, 30))
    register_scene(str(folder / "LE71400412000304SGS00_B4.tif"), modality=nir, acquired=date(2021, 10, 30))

    tiles = tiles_over(colour, define_grid("mercator", 3857, 30, 128))
    with ChipReader([rgb, nir]) as reader:
        chips = [reader.read(tile) for tile in tiles]

    whole = [c for c in chips if c.valid.get("rgb", np.zeros(1)).all()]
    assert len(whole) > 10
    assert all(c.valid["nir"].all() for c in whole)
    # Ice is bright in both: the two files are in register.
    flat = np.concatenate([np.stack([c.arrays["rgb"][0].ravel(), c.arrays["nir"][0].ravel()], 1) for c in whole])
    assert np.corrcoef(flat.T)[0, 1] > 0.7
