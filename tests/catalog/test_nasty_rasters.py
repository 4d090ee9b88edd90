"""Every raster of the collection of nasty files is registered and read, or refused in one sentence."""

import csv
import os
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box

from tests.catalog.periods import YEAR
from thawloop.catalog.chips import read_chip
from thawloop.catalog.geometry import to_geos, to_shapely
from thawloop.catalog.models import Tile
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import create_tiles, define_grid, define_modality, define_region, register_scene
from thawloop.core.errors import Refused

pytestmark = pytest.mark.django_db

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("THAWLOOP_REAL_DATA", REPOSITORY.parent / "shared" / "data")) / "nasty"

REFUSED = {
    "white-gemini-iv.vrt": "refers to a source",
    "cog_gcps.tif": "ground control points",
    "byte_gcp_pixelispoint.tif": "ground control points",
    "slc.tif": "ground control points|complex",
    "corrupt.tif": "cannot be read",
    "cog_cmap.tif": "colour table",
    "byte_inconsistent_georef.tif": "not tied to the Earth",
    "unsupported_codec_unknown.tif": "codec",
    "block_width_above_32bit.tif": "block size",
    "rotated.tif": "no coordinate reference system",
    "1bit_2bands.tif": "no coordinate reference system",
    "float32_with_nodata_slightly_above_float_max.tif": "no coordinate reference system",
    "non_square_pixels.tif": "no coordinate reference system",
    "uint16_nodata_65535_bigtiff.tif": "no coordinate reference system",
    "int64_full_range.tif": "no coordinate reference system",
    "SJER_052_hyperspectral.tif": "no coordinate reference system",
}
# Share of pixels that have a value, least and most, on a tile in the middle of the scene.
REGISTERED = {
    "rgb-byte-tenth.tif": (0.5, 1.0),
    "all-nodata.tif": (0.0, 0.0),
    "RGB2.byte.tif": (0.5, 1.0),
    "cog_dateline.tif": (1.0, 1.0),
    "inverted_lat.tif": (0.0, 0.5),
    "cog_uint8_rgb_mask.tif": (0.01, 1.0),
    "image_nan.tif": (0.01, 1.0),
    "rgbsmall_JPEG_ycbcr.tif": (0.5, 1.0),
    "sochi-aster-dem.tif": (1.0, 1.0),
    "olinda_dem_utm25s.tif": (1.0, 1.0),
    "rts_peel_l8_nodata_inf.tif": (0.9, 1.0),
    "rts_peel_s2_7bands.tif": (1.0, 1.0),
}


def rasters() -> list[str]:
    if not FOLDER.is_dir():
        return []
    with open(FOLDER / "MANIFEST.tsv", encoding="utf-8") as file:
        names = [row["file"].split(" (+")[0] for row in csv.DictReader(file, delimiter="\t")]
    return [name.removeprefix("raster/") for name in names if name.startswith("raster/")]


def test_the_collection_is_known():
    if not FOLDER.is_dir():
        pytest.skip("no real data")
    assert set(rasters()) == set(REFUSED) | set(REGISTERED)


@pytest.mark.parametrize("name", rasters())
def test_every_nasty_raster_is_registered_and_read_or_refused_in_a_sentence(name, settings):
    settings.THAWLOOP_DATA_ROOTS = [str(FOLDER)]
    modality = define_modality("m", bands=["a"], range_min=0, range_max=255, resampling="bilinear")

    def register():
        return register_scene(
            str(FOLDER / "raster" / name),
            modality=modality,
            acquired=date(2021, 6, 1),
            options=SceneOptions(band_indexes=[1]),
        )

    if name in REFUSED:
        with pytest.raises(Refused, match=REFUSED[name]) as refusal:
            register()
        assert "\n" not in str(refusal.value)
        return

    scene, _ = register()
    chip = read_chip(_tile_in_the_middle(scene), [modality])
    share = chip.valid["m"].mean() if "m" in chip.valid else 0.0
    least, most = REGISTERED[name]
    assert least <= share <= most
    if share:
        assert np.isfinite(chip.arrays["m"][:, chip.valid["m"]]).all()


def _tile_in_the_middle(scene) -> Tile:
    middle = to_shapely(scene.footprint).representative_point()
    zone = int((middle.x + 180) // 6) + 1
    grid = define_grid("g", (32600 if middle.y >= 0 else 32700) + zone, round(scene.pixel_size, 2), 32)
    high = 40 * scene.pixel_size / 111_000
    wide = high / np.cos(np.radians(middle.y))
    around = box(middle.x - wide, middle.y - high, middle.x + wide, middle.y + high)
    create_tiles(grid, define_region("r", around), **YEAR)
    return Tile.objects.select_related("grid").get(geometry__contains=to_geos(middle))
