"""Outlines at the antimeridian and the poles."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Point, Polygon, box

from thawloop.catalog.wrapping import outline_to_polygon, unwrap_ring, wrap_longitudes


def ring_around(lon: float, lat: float, radius: float) -> np.ndarray:
    """A small square ring, its longitudes folded into ±180."""
    square = shapely.get_coordinates(shapely.segmentize(box(lon - radius, lat - radius, lon + radius, lat + radius), 1))
    return np.column_stack([(square[:, 0] + 180) % 360 - 180, square[:, 1]])


@given(lon=st.floats(-179.9, 179.9), lat=st.floats(-60, 60), radius=st.floats(0.5, 20))
def test_an_outline_keeps_its_area_wherever_it_lies(lon, lat, radius):
    shape = outline_to_polygon(ring_around(lon, lat, radius))

    assert shape.is_valid
    assert shape.area == pytest.approx(4 * radius**2, rel=1e-6)
    assert -180 <= shape.bounds[0] <= shape.bounds[2] <= 180
    assert shape.intersects(Point(lon, lat))


@pytest.mark.parametrize("sign", [1, -1])
def test_an_outline_around_a_pole_holds_the_pole(sign):
    lon = np.linspace(-170, 190, 73)
    ring = np.column_stack([(lon + 180) % 360 - 180, np.full(73, 75.0 * sign)])
    ring[-1] = ring[0]

    shape = outline_to_polygon(ring)

    assert shape.area == pytest.approx(360 * 15, rel=1e-6)
    assert shape.intersects(Point(0, 89.9 * sign))
    assert not shape.intersects(Point(0, 70 * sign))


def test_the_whole_globe_is_not_taken_for_a_crossing():
    world = shapely.get_coordinates(shapely.segmentize(box(-180, -90, 180, 90), 10))
    assert outline_to_polygon(world).area == pytest.approx(360 * 180)


def test_longitudes_up_to_360_are_brought_home():
    shape = wrap_longitudes(box(170, 60, 190, 65), jumps=False)
    assert sorted(part.bounds for part in shape.geoms) == [(-180, 60, -170, 65), (170, 60, 180, 65)]


def test_a_long_edge_in_a_file_is_no_crossing():
    pan_arctic = box(-180, 60, 180, 80)
    assert wrap_longitudes(pan_arctic, jumps=False) is pan_arctic


def test_holes_move_with_their_polygon():
    shape = Polygon(
        [(179, 60), (-179, 60), (-179, 62), (179, 62)], [[(179.5, 61), (-179.5, 61), (-179.5, 61.5), (179.5, 61.5)]]
    )
    assert wrap_longitudes(shape).area == pytest.approx(2 * 2 - 1 * 0.5)


def test_what_crosses_nothing_comes_back_untouched():
    shape = box(10, 10, 20, 20)
    assert wrap_longitudes(shape) is shape


def test_unwrapping_leaves_unmoved_numbers_exact():
    ring = np.array([[179.1234567890123, 1.0], [-179.9, 1.0], [179.1234567890123, 2.0]])
    assert unwrap_ring(ring)[[0, 2], 0].tolist() == [179.1234567890123] * 2
