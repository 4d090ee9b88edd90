"""Region files: read as label files are, across the antimeridian and around the poles."""

import zipfile
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Point, Polygon, box

from tests.catalog.test_bounded_vectors import tangle
from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.geometry import geodesic_area, project
from thawloop.catalog.vectors.areas import read_area
from thawloop.catalog.vectors.cleaning import clean_geometry
from thawloop.catalog.vectors.projection import projection_of


def write(path: Path, *shapes: shapely.Geometry, crs: str | None = "EPSG:3413", **options: object) -> Path:
    driver = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON"}[path.suffix]
    options = {"geometry_type": "Polygon", "crs": crs, "driver": driver, **options}
    pyogrio.raw.write(path, shapely.to_wkb(shapes), [], [], **options)
    return path


def at(longitude: float, latitude: float, half: float) -> Polygon:
    """A square in EPSG:3413 around a place."""
    x, y = project(Point(longitude, latitude), 4326, 3413).coords[0]
    return box(x - half, y - half, x + half, y + half)


def test_a_region_across_the_antimeridian_is_no_larger_than_it_is(tmp_path: Path) -> None:
    square = at(180, 71, 50_000)

    area = read_area(write(tmp_path / "x.gpkg", square))

    assert all(area.intersects(Point(longitude, 71)) for longitude in (179.5, -179.9))
    assert not area.intersects(Point(0, 71))
    back = shapely.union_all(shapely.set_precision(list(project(area, 4326, 3413).geoms), 1e-3))
    assert back.symmetric_difference(square).area < 1e-6 * square.area


def test_long_edges_stay_straight_where_they_were_drawn(tmp_path: Path) -> None:
    square = at(-150, 71, 50_000)
    area = read_area(write(tmp_path / "x.gpkg", square))
    back = project(area.segmentize(0.001), 4326, 3413)
    assert back.symmetric_difference(square).area < 1e-5 * square.area


@pytest.mark.parametrize("hole", [False, True])
def test_a_region_around_the_pole_holds_the_pole_unless_it_has_a_hole_there(tmp_path: Path, hole: bool) -> None:
    square = box(-2e6, -2e6, 2e6, 2e6)
    shape = square.difference(box(-1e6, -1e6, 1e6, 1e6)) if hole else square

    area = read_area(write(tmp_path / "x.gpkg", shape))

    assert area.is_valid
    assert area.bounds[::2] == (-180, 180)
    assert all(area.intersects(Point(longitude, 89)) != hole for longitude in (-179, -90, 0, 90, 179))
    assert all(area.intersects(Point(longitude, 75)) for longitude in (-180, -135, 0, 90, 180))
    exact = project(shape.segmentize(2_000), 3413, 6931).area  # equal-area around the pole
    assert geodesic_area(area) == pytest.approx(exact, rel=1e-3)


def test_a_box_around_the_globe_stays_one(tmp_path: Path) -> None:
    area = read_area(write(tmp_path / "x.geojson", box(-180, 55, 180, 85), crs="EPSG:4326"))
    assert area.equals(box(-180, 55, 180, 85))


@settings(max_examples=30)
@given(longitude=st.floats(-180, 180), latitude=st.floats(50, 85), half=st.floats(10, 100_000))
def test_wherever_a_projected_square_lies_it_keeps_its_place(longitude: float, latitude: float, half: float) -> None:
    square = at(longitude, latitude, half)
    cleaned = clean_geometry(square, projection_of("EPSG:3413", override=None, name="test"))
    assert cleaned.polygons is not None
    assert cleaned.polygons.is_valid
    parts = list(project(cleaned.polygons, 4326, 3413).geoms)
    back = shapely.union_all(shapely.set_precision(parts, 1e-3))
    # Where it is cut, each half keeps a vertex on the antimeridian that reprojection moves by less than a metre.
    assert back.symmetric_difference(square).area < 1e-4 * square.area + 4 * half


def test_formats_layers_and_systems_are_those_of_label_files(tmp_path: Path) -> None:
    square = at(-134, 69, 5_000)
    shp = write(tmp_path / "x.shp", square, crs=None)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for part in tmp_path.glob("x.*"):
            if part.suffix != ".zip":
                archive.write(part, part.name)
    write(tmp_path / "two.gpkg", square, layer="here")
    write(tmp_path / "two.gpkg", at(-120, 72, 5_000), layer="there", append=True)
    (tmp_path / "x.csv").write_text(f'wkt,name\n"SRID=3413;{shapely.force_3d(square, 7).wkt}",é\n', "utf-8")
    collection = shapely.GeometryCollection([square, Point(0, 0)])
    write(tmp_path / "z.gpkg", collection, Point(1, 1), geometry_type="Unknown")

    expected = read_area(write(tmp_path / "y.gpkg", square))
    assert read_area(shp, crs="EPSG:3413").equals(expected)
    assert read_area(tmp_path / "x.zip", crs="EPSG:3413").equals(expected)
    assert read_area(tmp_path / "two.gpkg", layer="here").equals(expected)
    assert read_area(tmp_path / "x.csv").equals(expected)
    assert read_area(tmp_path / "z.gpkg").equals(expected)
    assert isinstance(expected, MultiPolygon)
    with pytest.raises(VectorFileRefused, match=r"2 layers \(here, there\).*`layer`"):
        read_area(tmp_path / "two.gpkg")
    with pytest.raises(VectorFileRefused, match=r"does not say its coordinate system.*`crs`"):
        read_area(shp)


@pytest.mark.usefixtures("one_second")
def test_a_region_that_would_lose_a_part_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gpkg", box(-111, 72, -110, 73), tangle(20_000), crs="EPSG:4326")
    with pytest.raises(VectorFileRefused, match=r"x\.gpkg: feature 2 takes more than 1 s"):
        read_area(path)


@pytest.fixture
def one_second(settings: object) -> None:
    settings.THAWLOOP_VECTOR_FEATURE_SECONDS = 1  # type: ignore[attr-defined]


def test_overlapping_polygons_are_one_area(tmp_path: Path) -> None:
    shapes = [at(-134 + shift, 69, 5_000) for shift in np.linspace(0, 0.2, 9)]
    area = read_area(write(tmp_path / "x.gpkg", *shapes))
    assert len(area.geoms) == 1
