"""Between pixels and the globe."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Point, Polygon, box

from thawloop.catalog.geometry import (
    geodesic_area,
    ground_pixel_size,
    tile_bounds,
    tile_transform,
    to_geographic,
    to_geographic_all,
    to_geos,
    to_pixels,
    to_shapely,
)
from thawloop.catalog.models import Tile, TileGrid

grids = st.builds(
    TileGrid,
    name=st.just("g"),
    srid=st.sampled_from([3413, 32608, 3857, 3995]),
    pixel_size=st.sampled_from([0.5, 2.0, 3.0, 10.0, 30.0]),
    tile_size=st.sampled_from([32, 100, 128, 512]),
    overlap=st.sampled_from([0, 8, 31]),
)


def at(grid: TileGrid, x: float, y: float) -> Tile:
    step = (grid.tile_size - grid.overlap) * grid.pixel_size
    return Tile(grid=grid, col=int(x // step), row=int(y // step), key="t")


@st.composite
def tiles(draw) -> Tile:
    grid = draw(grids)
    if grid.srid == 32608:
        return at(grid, draw(st.floats(300_000, 700_000)), draw(st.floats(6_500_000, 8_900_000)))
    # Away from the pole itself; everywhere else, the antimeridian included.
    x, y = draw(st.floats(-3e6, 3e6)), draw(st.floats(-3e6, -1e5) | st.floats(1e5, 3e6))
    return at(grid, x, y)


@given(tile=tiles(), data=st.data())
def test_pixels_survive_the_way_to_the_globe_and_back(tile, data):
    size = tile.grid.tile_size
    x, y = data.draw(st.floats(0, size - 2)), data.draw(st.floats(0, size - 2))
    ring = np.array([[x, y], [x + 1.5, y], [x + 1.5, y + 2], [x, y + 2]])

    back = to_pixels(tile, to_geographic(tile, [ring]))

    assert back.symmetric_difference(Polygon(ring)).area < 1e-3


@given(tile=tiles())
def test_the_whole_tile_survives_the_way_to_the_globe_and_back(tile):
    size = tile.grid.tile_size
    frame = box(0, 0, size, size)
    hole = box(size / 4, size / 4, size / 2, size / 2)
    rings = [np.asarray(frame.exterior.coords), np.asarray(hole.exterior.coords)]

    back = to_pixels(tile, to_geographic(tile, rings))

    assert back.symmetric_difference(frame.difference(hole)).area < 1e-3 * size


@given(tile=tiles())
def test_longitudes_stay_within_180_degrees(tile):
    size = tile.grid.tile_size
    shape = to_geographic(tile, [[(0, 0), (size, 0), (size, size), (0, size)]])

    west, south, east, north = shape.bounds
    assert -180 <= west <= east <= 180
    assert east - west < 180 or isinstance(shape, MultiPolygon)
    assert -90 <= south <= north <= 90


def test_transform_is_north_up_from_the_cells_upper_left():
    tile = Tile(grid=TileGrid(srid=3413, pixel_size=2, tile_size=100, overlap=20), col=3, row=-2, key="t")

    assert tile_bounds(tile) == (480, -320, 680, -120)
    assert tile_transform(tile) @ (0, 0) == (480, -120)
    assert tile_transform(tile) @ (100, 100) == (680, -320)


def test_a_shape_across_the_antimeridian_is_one_in_pixels():
    # In EPSG:3413 the antimeridian runs through x > 0, y > 0 on the diagonal.
    tile = at(TileGrid(srid=3413, pixel_size=10, tile_size=512, overlap=0), -1_402_000, 1_402_000)
    ring = [(10, 10), (500, 10), (500, 500), (10, 500)]

    shape = to_geographic(tile, [ring])
    assert shape.geom_type == "MultiPolygon"
    assert {round(abs(p.bounds[0 if p.bounds[0] < -179 else 2])) for p in shape.geoms} == {180}
    assert to_pixels(tile, shape).geom_type == "Polygon"


def test_an_edge_across_the_antimeridian_stays_straight_in_pixels():
    # 150 km from the pole, 15 km edges: cut in longitude and latitude they would bend by a pixel.
    tile = at(TileGrid(srid=3413, pixel_size=30, tile_size=512, overlap=100), -110_000, 110_000)
    ring = [(0, 0), (512, 0), (512, 512), (0, 512)]

    shape = to_geographic(tile, [ring])

    assert len(shape.geoms) == 2
    assert to_pixels(tile, shape).symmetric_difference(Polygon(ring)).area < 1e-3


def test_many_shapes_at_once_lie_where_each_lies_alone():
    tile = at(TileGrid(srid=3413, pixel_size=10, tile_size=512, overlap=0), -1_402_000, 1_402_000)
    ring, hole = [(10, 10), (500, 10), (500, 500), (10, 500)], [(200, 200), (300, 200), (250, 300), (200, 200)]
    aside = [(400, 20), (420, 20), (420, 40)]

    outlines = [[aside], [ring, hole], [ring]]

    together = to_geographic_all(tile, outlines)
    assert [shape.geom_type for shape in together] == ["Polygon", "MultiPolygon", "MultiPolygon"]
    assert all(shape.equals_exact(to_geographic(tile, one)) for shape, one in zip(together, outlines, strict=True))
    assert to_geographic_all(tile, []) == []


def test_geometries_travel_between_shapely_and_django_unchanged():
    shape = MultiPolygon([box(0, 0, 1, 1).difference(box(0.2, 0.2, 0.4, 0.4))])

    assert to_shapely(to_geos(shape)).equals_exact(shape)
    assert to_geos(shape).srid == 4326


def test_area_is_measured_on_the_ellipsoid_not_in_a_projection():
    # A degree square at 74 N: 111.6 km x 30.9 km.
    square = shapely.segmentize(box(100, 73.5, 101, 74.5), 0.01)
    assert geodesic_area(square) == pytest.approx(3.44e9, rel=0.01)
    assert geodesic_area(square.difference(box(100.2, 73.7, 100.4, 73.9))) < geodesic_area(square)
    assert geodesic_area(Point(1, 1).buffer(0)) == 0


def test_a_mercator_pixel_is_a_quarter_as_wide_on_the_ground_in_the_arctic():
    tile = at(TileGrid(srid=3857, pixel_size=10, tile_size=128, overlap=0), 1e7, 12_932_243)  # 75 N
    width, height = ground_pixel_size(tile)
    assert width == pytest.approx(2.595, rel=0.002)
    assert height == pytest.approx(2.595, rel=0.002)
