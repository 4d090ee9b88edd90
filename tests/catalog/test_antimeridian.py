"""Rasters at the antimeridian and around the poles: what tiles read there is what lies there."""

from collections.abc import Callable

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

from tests.catalog.periods import YEAR
from thawloop.catalog.chips import read_chip
from thawloop.catalog.geometry import tile_transform, to_geographic, to_geos, to_shapely, transformer
from thawloop.catalog.models import Region, Scene, Tile, TileGrid
from thawloop.catalog.rasters import inspect_raster
from thawloop.catalog.turns import turn_of

pytestmark = pytest.mark.django_db

SIZE, PIXEL = 64, 300.0
TileAt = Callable[..., Tile]


def field(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """What there is: smooth, and told by the true place alone."""
    return (100 + 40 * np.sin(np.radians(lon * 20)) + 30 * np.cos(np.radians(lat * 20))).astype("float32")


def truth(tile: Tile) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    x, y = tile_transform(tile) @ (columns, rows)
    return field(*transformer(tile.grid.srid, 4326).transform(x, y))


@pytest.fixture
def tile_at(db: None) -> TileAt:
    """A tile around a place, with its true footprint, split at ±180."""

    def make(lon: float, lat: float, *, srid: int = 3413, pixel_size: float = PIXEL) -> Tile:
        grid, _ = TileGrid.objects.get_or_create(
            srid=srid, pixel_size=pixel_size, tile_size=SIZE, overlap=0, defaults={"name": f"g{srid}-{pixel_size:g}"}
        )
        region, _ = Region.objects.get_or_create(
            name="all", defaults={"geometry": to_geos(shapely.MultiPolygon([shapely.box(-180, 55, 180, 90)]))}
        )
        side = SIZE * pixel_size
        x, y = transformer(4326, srid).transform(lon, lat)
        col, row = int(x // side), int(y // side)
        tile = Tile(grid=grid, region=region, col=col, row=row, key=f"{grid.name}_c{col}_r{row}", **YEAR)
        edge = np.linspace(0, SIZE, 9)
        rim = [*((x, 0) for x in edge), *((SIZE, y) for y in edge), *((x, SIZE) for x in edge[::-1]),
               *((0, y) for y in edge[::-1])]  # fmt: skip
        tile.geometry = to_geos(to_geographic(tile, [rim]))
        known = Tile.objects.filter(key=tile.key).first()
        if known is None:
            tile.save()
        return known or tile

    return make


def lonlat(west: float, east: float, step: float = 0.05, south: float = 70, north: float = 72) -> dict:
    """A raster of the field in degrees, as `make_scene` takes it."""
    columns, rows = round((east - west) / step), round((north - south) / step)
    lon, lat = west + (np.arange(columns) + 0.5) * step, north - (np.arange(rows) + 0.5) * step
    return {
        "array": field(*np.meshgrid(lon, lat)),
        "crs": "EPSG:4326",
        "transform": Affine(step, 0, west, 0, -step, north),
    }


def projected(crs: str, left: float, top: float, width: int, height: int, pixel: float) -> dict:
    """A raster of the field in a projected CRS."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    transform = Affine(pixel, 0, left, 0, -pixel, top)
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(*(transform @ (columns, rows)))
    return {"array": field(lon, lat), "crs": crs, "transform": transform}


@pytest.fixture
def check(make_modality, make_scene, tile_at):
    """Read one tile from rasters and compare it with the truth."""

    def compare(*rasters: dict, lon: float, lat: float = 71.0, error: float = 0.5, **grid) -> None:
        modality = make_modality("dem", ("elevation",), range_max=300, resampling="bilinear")
        for number, raster in enumerate(rasters):
            make_scene(modality=modality, name=f"{number}.tif", **raster)
        tile = tile_at(lon, lat, **grid)
        chip = read_chip(tile, [modality])
        assert "dem" in chip.arrays
        assert chip.valid["dem"].all()
        np.testing.assert_allclose(chip.arrays["dem"][0], truth(tile), atol=error)

    return compare


@pytest.mark.parametrize("lon", [178.0, -178.0, 180.0], ids=["west", "east", "across"])
@pytest.mark.parametrize(
    ("west", "east"), [(-180, 180), (170, 190), (-190, -170), (0, 360), (-180.05, 180.05)], ids=str
)
def test_rasters_in_degrees_are_read_on_both_sides_and_across(check, west, east, lon):
    check(lonlat(west, east), lon=lon)


def test_a_raster_around_the_globe_has_no_seam(make_modality, make_scene, tile_at):
    """Its last column is the first one's neighbour, so pixels between their centres are interpolated, not repeated."""
    modality = make_modality("dem", ("elevation",), range_max=300, resampling="bilinear")
    make_scene(modality=modality, **lonlat(-180, 180, step=0.5))
    tile = tile_at(180.0, 71.0)

    error = np.abs(read_chip(tile, [modality]).arrays["dem"][0] - truth(tile))

    assert error.max() < 0.2


@pytest.mark.parametrize("lon", [179.8, -179.8, 180.0])
def test_pieces_that_meet_at_180_make_one_surface(check, lon):
    check(lonlat(178, 180, 0.005, 70, 72), lonlat(-180, -178, 0.005, 70, 72), lon=lon)


@pytest.mark.parametrize("srid", [3413, 32660, 32601, 3571], ids=["polar", "UTM 60", "UTM 1", "LAEA Bering"])
def test_every_grid_reads_rasters_in_degrees_across_180(check, srid):
    check(lonlat(-180, 180), lon=179.99, lat=71.0, srid=srid)


@pytest.mark.parametrize(
    ("crs", "left", "top"),
    [
        ("EPSG:32660", 560_000, 7_950_000),
        ("EPSG:32601", 340_000, 7_950_000),
        ("EPSG:3857", 19_900_000, 11_500_000),  # runs on to 20,137 km: its edge is at 20,037
        ("EPSG:3832", 3_200_000, 11_500_000),  # Mercator around 150° E: nothing starts anew here
        ("EPSG:6933", 17_250_000, 6_960_000),
        ("EPSG:3571", -60_000, -1_990_000),
        ("EPSG:3413", -1_600_000, 1_600_000),
    ],
)
def test_projected_rasters_that_cross_180_are_read_across(check, crs, left, top):
    width = 1000 if crs in ("EPSG:3857", "EPSG:6933", "EPSG:3832") else 500
    check(projected(crs, left, top, width, 700, 300), lon=180.0, lat=71.0)


def test_mercator_scenes_and_grids_meet_across_their_edge(check):
    raster = projected("EPSG:3857", 19_900_000, 11_500_000, 1000, 700, 300)
    check(raster, lon=-179.6, lat=71.0, srid=3857)


def test_a_hole_at_180_stays_a_hole(make_modality, make_scene, tile_at):
    """Where two rasters leave a gap, nothing is invented from their far ends."""
    modality = make_modality("dem", ("elevation",), range_max=300, resampling="bilinear")
    for name, west in (("a.tif", 177.9), ("b.tif", -179.9)):
        make_scene(modality=modality, name=name, **lonlat(west, west + 2, 0.005, 70, 72))
    tile = tile_at(180.0, 71.0)

    valid = read_chip(tile, [modality]).valid["dem"]

    columns, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    lon, _ = transformer(3413, 4326).transform(*(tile_transform(tile) @ (columns, rows)))
    np.testing.assert_array_equal(valid, np.abs(lon) < 179.9)


def test_a_tile_beside_the_pole_is_read_from_a_raster_in_degrees(check):
    check(lonlat(-180, 180, 0.1, 85, 90), lon=100.0, lat=89.7, error=8.0)


@pytest.mark.parametrize("west", [-180, 0])
@pytest.mark.parametrize("half", [0, 0.25])
def test_the_footprint_of_a_global_raster_is_the_globe(write_raster, west, half):
    """With pixels centred on the poles, too, which reach half their size beyond."""
    raster = lonlat(west - half, west + 360 - half, 0.5, -90 - half, 90 + half)
    facts = inspect_raster(str(write_raster(raster.pop("array"), **raster)))

    assert facts.footprint.bounds == pytest.approx((-180, -90, 180, 90))
    assert facts.footprint.area == pytest.approx(360 * 180)


@pytest.mark.parametrize(
    "raster",
    [
        lonlat(178, 182),
        lonlat(-182, -178),
        projected("EPSG:3857", 20_037_508 - 2 * 111_319.49, 11_500_000, 1484, 300, 300),
        lonlat(178, 182) | {"crs": "EPSG:4284"},
    ],
    ids=["to 182", "from -182", "Mercator", "Pulkovo 1942"],
)
def test_footprints_across_180_are_split_there(write_raster, raster):
    raster = dict(raster)
    footprint = inspect_raster(str(write_raster(raster.pop("array"), **raster))).footprint

    west, east = sorted(footprint.geoms, key=lambda part: part.bounds[0])
    assert (west.bounds[0], east.bounds[2]) == (-180, 180)
    assert (west.bounds[2], east.bounds[0]) == pytest.approx((-178, 178), abs=0.01)


@hypothesis_settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    lon=st.floats(-1.0, 1.0),
    lat=st.floats(68.0, 71.0),
    west=st.sampled_from([179.0, -181.0, -180.0, 178.5, 180.0]),
    srid=st.sampled_from([3413, 32660, 32601, 3571]),
    resampling=st.sampled_from(["nearest", "bilinear", "cubic"]),
)
def test_chips_across_180_equal_gdals_warp_of_the_same_raster(
    make_modality, make_scene, tile_at, lon, lat, west, srid, resampling
):
    """`rasterio.warp` of a whole raster counts longitudes around its middle: ours is the same, edges included."""
    modality = make_modality(f"m-{resampling}", ("a",), range_max=300, resampling=resampling)
    raster = lonlat(west, west + 2, 0.01, 68, 71)
    Scene.objects.all().delete()
    make_scene(modality=modality, name=f"{west}.tif", **raster)
    tile = tile_at((lon + 360) % 360 - 180, lat, srid=srid)

    chip = read_chip(tile, [modality])

    expected = np.full((SIZE, SIZE), np.nan, np.float32)
    reproject(
        raster["array"],
        expected,
        src_transform=raster["transform"],
        src_crs=raster["crs"],
        src_nodata=-1,
        dst_transform=tile_transform(tile),
        dst_crs=f"EPSG:{srid}",
        dst_nodata=np.nan,
        resampling=Resampling[resampling],
        XSCALE=1,
        YSCALE=1,
    )
    got = chip.arrays[modality.name][0] if chip.arrays else np.full((SIZE, SIZE), np.nan)
    # Both find places to an eighth of a pixel only: that decides on single pixels at the raster's edge, and between
    # neighbours where the nearest is taken.
    both = np.isfinite(got) & np.isfinite(expected)
    assert (np.isnan(got) != np.isnan(expected)).sum() <= 8
    np.testing.assert_allclose(got[both], expected[both], atol=0.3 if resampling == "nearest" else 0.1)


@pytest.mark.parametrize(
    ("crs", "length"),
    [
        ("EPSG:4326", 360.0),
        ("EPSG:4326+5773", 360.0),
        ("EPSG:4807", 400.0),  # Paris, in grads
        ("EPSG:3857", 2 * np.pi * 6_378_137),
        ("EPSG:3832", 2 * np.pi * 6_378_137),
        ("EPSG:4087", 2 * np.pi * 6_378_137),
        ("EPSG:3413", None),
        ("EPSG:32660", None),
        ("ESRI:54008", None),  # sinusoidal: its edges are curved
    ],
)
def test_it_is_known_which_coordinates_repeat(crs, length):
    turn = turn_of(CRS.from_user_input(crs))

    assert (turn.length if turn else None) == pytest.approx(length)


def test_footprints_and_tiles_agree_at_180(make_scene, make_modality, tile_at):
    """A tile with pixels under a raster is asked of it."""
    scene = make_scene(modality=make_modality("dem", ("e",)), **lonlat(-180, -179.9, 0.005, 70.9, 71.1))
    assert to_shapely(scene.footprint).intersects(to_shapely(tile_at(180.0, 71.0).geometry))
