"""Slope, shaded relief and relative elevation."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from thawloop.catalog.chips import read_chip
from thawloop.catalog.services import ensure_builtin
from thawloop.catalog.terrain import hillshade, relative_elevation, slope


def plane(east: float, south: float, size: int = 20, pixel: float = 10.0) -> np.ndarray:
    rows, columns = np.mgrid[0:size, 0:size] * pixel
    return (1000 + east * columns + south * rows).astype(np.float32)


@given(east=st.floats(-2, 2), south=st.floats(-2, 2), pixel=st.sampled_from([2.0, 10.0, 30.0]))
def test_the_slope_of_a_plane_is_its_angle(east, south, pixel):
    inner = slope(plane(east, south, pixel=pixel), pixel, pixel)[1:-1, 1:-1]
    np.testing.assert_allclose(inner, np.degrees(np.arctan(np.hypot(east, south))), atol=0.05)


def test_slope_minds_pixels_that_are_not_square():
    inner = slope(plane(1, 0, pixel=10), 20, 10)[1:-1, 1:-1]
    np.testing.assert_allclose(inner, np.degrees(np.arctan(0.5)), atol=0.01)


@pytest.mark.parametrize(("azimuth", "towards"), [(0, (0, 1)), (90, (-1, 0)), (180, (0, -1)), (270, (1, 0))])
def test_slopes_that_face_the_light_are_bright(azimuth, towards):
    """Ground that faces north rises to the south, ground that faces east rises to the west."""
    east, south = towards
    facing = hillshade(plane(east, south), 10, 10, azimuth=azimuth)[5, 5]
    away = hillshade(plane(-east, -south), 10, 10, azimuth=azimuth)[5, 5]
    flat = hillshade(plane(0, 0), 10, 10, azimuth=azimuth)[5, 5]
    assert facing == pytest.approx(1.0, abs=1e-4)
    assert flat == pytest.approx(np.sin(np.radians(45)), abs=1e-4)
    assert away == pytest.approx(0.0, abs=1e-3)


def test_relative_elevation_is_the_height_over_the_box_around():
    elevation = np.random.default_rng(0).normal(2000, 50, (60, 60)).astype(np.float32)
    expected = elevation - uniform_filter(elevation.astype(np.float64), 11)
    np.testing.assert_allclose(relative_elevation(elevation, 5, 5)[5:-5, 5:-5], expected[5:-5, 5:-5], atol=0.01)


def test_relative_elevation_of_a_plane_is_nothing():
    np.testing.assert_allclose(relative_elevation(plane(0.3, 0.1), 4, 4)[4:-4, 4:-4], 0, atol=1e-3)


def test_only_pixels_without_elevation_have_no_terrain():
    elevation = plane(0.1, 0.2)
    elevation[5:9, 5:9] = np.nan
    missing = np.isnan(elevation)
    for terrain in (slope(elevation, 10, 10), hillshade(elevation, 10, 10), relative_elevation(elevation, 3, 3)):
        np.testing.assert_array_equal(np.isnan(terrain), missing)
    assert np.isnan(relative_elevation(np.full((5, 5), np.nan, np.float32), 2, 2)).all()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["slope", "hillshade", "relative_elevation"])
def test_terrain_has_no_seams_between_tiles(make_scene, make_tile, name):
    """Two small tiles show what one large tile shows: the halo gives each what lies around it."""
    rows, columns = np.mgrid[0:400, 0:400]
    dem = (500 + 60 * np.sin(rows / 11) + 50 * np.cos(columns / 13)).astype(np.float32)
    modality = ensure_builtin(name)
    make_scene(dem, modality=ensure_builtin("dem"))
    large = make_tile(501_000, 7_598_500, tile_size=128)
    left = large.col * 1280
    bottom = large.row * 1280
    whole = read_chip(large, [modality]).arrays[name][0]

    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        small = make_tile(left + 640 * dx + 1, bottom + 640 * dy + 1, tile_size=64)
        part = whole[64 * (1 - dy) : 64 * (2 - dy), 64 * dx : 64 * (dx + 1)]
        np.testing.assert_allclose(read_chip(small, [modality]).arrays[name][0], part, atol=2e-3)


@pytest.mark.django_db
def test_slope_is_measured_in_metres_on_the_ground(make_scene, make_tile):
    """A 45 degree slope stays one on a Mercator grid, whose pixels are a third as wide as they say at 68 N."""
    dem = np.tile(np.arange(400, dtype=np.float32) * 10, (400, 1))
    scene = make_scene(dem, modality=ensure_builtin("dem"), transform=Affine(10, 0, 500_000, 0, -10, 7_600_000))
    middle = scene.footprint.centroid
    middle.transform(3857)
    tile = make_tile(middle.x, middle.y, srid=3857, pixel_size=27)

    chip = read_chip(tile, [ensure_builtin("slope")])

    np.testing.assert_allclose(np.median(chip.arrays["slope"]), 45, atol=0.5)
