"""Reading whatever files people have: the nasty ones by name, the published inventories as they were published."""

import csv
import os
import struct
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings
from shapely import affinity
from shapely.geometry import MultiPolygon, Polygon, box

from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.geometry import geodesic_area, project
from thawloop.catalog.vectors.cleaning import clean_geometry
from thawloop.catalog.vectors.projection import projection_of
from thawloop.catalog.vectors.reading import read_vector_file
from thawloop.catalog.vectors.staging import staged

REAL_DATA = Path(os.environ.get("THAWLOOP_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no real data in {REAL_DATA}")
GEOGRAPHIC = projection_of("EPSG:4326", override=None, name="test")
# What each nasty file becomes: how many polygons, or the words of its refusal (whole file, or of its features).
NASTY: dict[str, int | str] = {
    "rts_banks_study_area_noprj.shp": "does not say its coordinate system: give it, e.g. --crs",
    "rts_esl_custom_stereo.shp": 356,
    "rts_wsiberia_geojson_crs_z.zip": "holds 2 label files (RTS_201619_poi, RTS_2021_polyg): choose one with --layer",
    "rts_bernhard2022_points.kml": "is a point, not a polygon",
    "rts_runge_study_area_over180.geojson": 1,
    "antimeridian_force_north_pole.geojson": 1,
    "antimeridian_multi_split.geojson": 1,
    "antimeridian_both_poles.geojson": 1,
    "multisurface.gpkg": 1,
    "line_zm.gpkg": "is a line, not a polygon",
    "multipolygon_as_invalid_polygon.shp": "does not say its coordinate system",
    "mixed_shape_type_non_conformant.shp": "does not say its coordinate system",
    "slightly_overlapping_polygons.shp": "does not say its coordinate system",
    "first_geometry_null.gpkg": "does not say its coordinate system",
    "point_with_utf8bom.json": "is a point, not a polygon",
    "test_type_promotion.json": "has no geometry",
    "ngw_empty-ring.geojson": 1,
    "ngw_unclosed-ring.geojson": 1,
    "ngw_mixed-feature-geom.geojson": 1,
    "ngw_geom-collection.geojson": "is a GeometryCollection, not a polygon",
    "ngw_incomplete-polygon.geojson": "has no area",
    "ngw_out-of-bounds-point.geojson": "has latitudes beyond ±90",
    "ngw_corrupted.zip": "is a point, not a polygon",
    "codepage.zip": "is a point, not a polygon",
    "!test.geojson": 1,
    "test_tin.shp": "does not say its coordinate system",
    "geometrycollection_nested.geojson": "is a GeometryCollection, not a polygon",
    "bad-json.geojson": "cannot be read (Failed to read GeoJSON data",
}
# With a coordinate system given, these hold something after all, or say what is really wrong.
NASTY_WITH_CRS: dict[str, int | str] = {
    "rts_banks_study_area_noprj.shp": 1,
    "multipolygon_as_invalid_polygon.shp": 2,
    "mixed_shape_type_non_conformant.shp": 2,
    "slightly_overlapping_polygons.shp": 1,
    "first_geometry_null.gpkg": 1,
    "test_tin.shp": "has a broken geometry (a ring with too few points, or a surface type that is not a polygon)",
}


def polygons(path: Path, *, crs: str | None = None, layer: str | None = None) -> tuple[list[MultiPolygon], Counter]:
    """The geometries of record of a file, and why its other features are refused."""
    file = read_vector_file(path, crs=crs, layer=layer)
    found = [feature.polygons for feature in file.features if feature.polygons is not None]
    for shape in found:
        west, south, east, north = shape.bounds
        assert shape.is_valid
        assert not shape.has_z
        assert -180 <= west <= east <= 180
        assert -90 <= south <= north <= 90
    return found, Counter(feature.refused for feature in file.features if feature.polygons is None)


def read_or_refused(path: Path, crs: str | None = None) -> tuple[list[MultiPolygon], Counter]:
    """Geometries and reasons; a refusal of the whole file is its one reason."""
    try:
        return polygons(path, crs=crs)
    except VectorFileRefused as refusal:
        return [], Counter([str(refusal)])


def check(path: Path, expected: int | str, crs: str | None = None) -> None:
    if isinstance(expected, int):
        assert len(polygons(path, crs=crs)[0]) == expected
        return
    found, reasons = read_or_refused(path, crs)
    assert found == []
    assert any(expected in reason for reason in reasons)
    assert not any(str(path.parent) in reason for reason in reasons)


@needs_real_data
def test_every_nasty_vector_is_expected_to_become_something() -> None:
    with (REAL_DATA / "nasty" / "MANIFEST.tsv").open() as file:
        names = {row["file"].split(" ")[0] for row in csv.DictReader(file, delimiter="\t")}
    assert {name.removeprefix("vector/") for name in names if name.startswith("vector/")} == NASTY.keys()


@needs_real_data
@pytest.mark.parametrize("name", NASTY)
def test_nasty_file(name: str) -> None:
    check(REAL_DATA / "nasty" / "vector" / name, NASTY[name])


@needs_real_data
@pytest.mark.parametrize("name", NASTY_WITH_CRS)
def test_nasty_file_with_its_crs_given(name: str) -> None:
    crs = "ESRI:102002" if name.startswith("rts_banks") else "EPSG:3857"
    check(REAL_DATA / "nasty" / "vector" / name, NASTY_WITH_CRS[name], crs)


@needs_real_data
def test_crs_member_and_layers_of_an_archive_are_honoured() -> None:
    path = REAL_DATA / "nasty" / "vector" / "rts_wsiberia_geojson_crs_z.zip"
    file = read_vector_file(path, layer="RTS_201619_poi")
    assert "32643" in str(file.crs)
    found, _ = polygons(path, layer="RTS_2021_polyg")
    assert len(found) == 97
    assert all(67 < shape.bounds[0] < 82 and 69 < shape.bounds[1] < 73 for shape in found)


@needs_real_data
def test_code_pages_are_honoured() -> None:
    file = read_vector_file(REAL_DATA / "nasty" / "vector" / "codepage.zip")
    assert [feature.properties["field"] for feature in file.features][1] == "Hněvošický háj"


@needs_real_data
def test_utf8_without_a_code_page_is_recognised() -> None:
    file = read_vector_file(REAL_DATA / "nasty" / "vector" / "ngw_corrupted.zip")
    assert file.features[0].properties == {"поле_": "значение 1"}


def inventories() -> list[Path]:
    endings = (".shp", ".geojson", ".gpkg", ".kml", ".kmz", ".csv", ".tab")
    folder = REAL_DATA / "polygons"
    return sorted(path for path in folder.rglob("*") if path.suffix in endings) if folder.is_dir() else []


@needs_real_data
@pytest.mark.parametrize("path", inventories(), ids=lambda path: path.name)
def test_published_inventory_is_read_or_refused_with_one_sentence(path: Path) -> None:
    found, reasons = read_or_refused(path)
    if not found:
        (reason,) = reasons
        assert reason in ("is a point, not a polygon", "is a line, not a polygon") or reason.startswith(path.name)
        assert "\n" not in reason
        return
    # Every published inventory of slumps lies in the Arctic, and no slump is larger than a few square kilometres.
    assert all(shape.bounds[1] > 55 for shape in found)
    if "Footprint" not in path.name and "tudy" not in path.name:
        assert np.median([geodesic_area(shape) for shape in found]) < 3e6


@needs_real_data
def test_same_slumps_in_two_formats_and_systems_are_the_same_place() -> None:
    folder = REAL_DATA / "polygons" / "Huang2022"
    utm, _ = polygons(folder / "HotWeatherCreek_slumps.shp")
    kml, _ = polygons(folder / "HotWeatherCreek_slumps.kml")
    assert len(utm) == len(kml) == 162
    moved = [a.intersection(b).area / a.union(b).area for a, b in zip(utm, kml, strict=True)]
    assert min(moved) > 0.999


def test_polygon_across_the_antimeridian_is_cut() -> None:
    # Wrangel Island in polar stereographic coordinates: EPSG:4326 longitudes jump from 180 to -180 inside it.
    square = box(-1_650_000, 1_640_000, -1_640_000, 1_650_000).segmentize(1000)
    hole = square.buffer(-2000)
    projection = projection_of("EPSG:3413", override=None, name="test")

    cleaned = clean_geometry(square.difference(hole), projection)

    assert cleaned.polygons is not None
    assert len(cleaned.polygons.geoms) == 2
    assert (cleaned.polygons.bounds[0], cleaned.polygons.bounds[2]) == (-180, 180)
    back = shapely.union_all(shapely.set_precision(list(project(cleaned.polygons, 4326, 3413).geoms), 1e-3))
    assert back.symmetric_difference(square.difference(hole)).area < 1e-3 * square.area


@given(
    longitude=st.floats(-180, 180),
    latitude=st.floats(-80, 80),
    width=st.floats(0.001, 2),
    height=st.floats(0.001, 2),
    encoding=st.sampled_from(["jump", "run on", "turn back"]),
)
def test_wherever_a_square_lies_and_however_it_is_written_its_area_stays(
    longitude: float, latitude: float, width: float, height: float, encoding: str
) -> None:
    square = box(longitude, latitude, longitude + width, latitude + height)
    expected = square.area
    if encoding == "jump":
        square = shapely.transform(square, lambda xy: np.column_stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]]))
    elif encoding == "turn back":
        square = affinity.translate(square, -360 if longitude > 0 else 0)

    cleaned = clean_geometry(square, GEOGRAPHIC)

    assert cleaned.polygons is not None
    west, _, east, _ = cleaned.polygons.bounds
    assert -180 <= west <= east <= 180
    assert cleaned.polygons.area == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=3, max_size=12))
def test_any_ring_becomes_a_valid_polygon_or_a_reason(points: list[tuple[float, float]]) -> None:
    cleaned = clean_geometry(Polygon(points), GEOGRAPHIC)

    if cleaned.polygons is None:
        assert cleaned.refused
    else:
        assert cleaned.polygons.is_valid
        assert cleaned.polygons.area > 0
        assert bool(cleaned.repaired) == (not Polygon(points).is_valid)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.geojson", b'<OGRVRTDataSource><OGRVRTLayer name="passwd"/></OGRVRTDataSource>', "does not hold GeoJSON"),
        ("x.gpkg", b"not a database", "does not hold GeoPackage"),
        ("x.kml", b"<html></html>", "does not hold KML"),
        ("x.txt", b"text", "ends in `.txt`, which is not a known label format"),
        ("x.shp", b"\x00\x00\x27\x0a", "has no x.shx beside it"),
        ("x.zip", b"PK\x05\x06", "is not a readable zip archive"),
        ("x.csv", b"", "is empty"),
        ("x.csv", b"a,b\n1,2\n", "has no geometry column among a, b"),
        ("x.csv", b'wkt\n"SRID=4326;POINT (1 2)"\n"SRID=3413;POINT (1 2)"\n', "mixes coordinate systems"),
    ],
)
def test_what_is_no_label_file_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VectorFileRefused) as refusal:
        read_vector_file(path)
    assert sentence in str(refusal.value)


def test_an_archive_that_is_damaged_anywhere_is_refused_or_reads_the_same(tmp_path: Path) -> None:
    path, text = tmp_path / "x.zip", b'{"type": "FeatureCollection", "features": [' + b" " * 500 + b"]}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.geojson", text)
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        for other in (0xFF, 0x06):  # the second makes deflate an unknown way of packing, or another one
            path.write_bytes(whole[:place] + bytes([whole[place] ^ other]) + whole[place + 1 :])
            try:
                with staged(path, max_bytes=10_000) as found:
                    assert found.read_bytes() == text
            except VectorFileRefused:
                refused += 1
    assert refused > len(whole)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_is_packed_in_a_rare_way_is_refused(tmp_path: Path, packing: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", packing) as archive:
        archive.writestr("a.geojson", "{}")
    with (
        pytest.raises(VectorFileRefused, match="not packed in the usual way"),
        staged(tmp_path / "x.zip", max_bytes=10_000),
    ):
        pass


def test_archive_members_cannot_leave_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped.geojson", '{"type": "FeatureCollection", "features": []}')
    assert read_vector_file(path).features == []
    assert not (tmp_path.parent / "escaped.geojson").exists()


@pytest.mark.parametrize("zip64", [False, True])
def test_an_archive_of_countless_members_is_refused_before_they_are_listed(tmp_path: Path, zip64: bool) -> None:
    path, count = tmp_path / "x.zip", 30_000
    member = b"PK\x01\x02" + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    size = len(member) * count
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, 0 if zip64 else size, 0, 0)
    if zip64:  # a record that counts, whatever the last one says
        record = b"PK\x06\x06" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, count, count, size, 0)
        end = record + b"PK\x06\x07" + struct.pack("<IQI", 0, size, 1) + end
    path.write_bytes(member * count + end)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == count
    tracemalloc.start()
    with pytest.raises(VectorFileRefused, match="more than 2,000 files"):
        read_vector_file(path)
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()


def test_table_of_wkt_is_read_in_any_dialect(tmp_path: Path) -> None:
    square = box(-134, 69, -133.9, 69.1)
    path = tmp_path / "x.csv"
    path.write_text(f'\ufeffName;WKT\r\nÄ;"SRID=4326;{square.wkt}"\r\n;\r\nB;POLYGON ((broken\r\n', "utf-8")
    file = read_vector_file(path)
    assert file.crs == "EPSG:4326"
    first, second = file.features
    assert first.polygons.equals(square)
    assert (first.id, first.properties) == ("2", {"Name": "Ä"})
    assert second.polygons is None
    assert "broken WKT" in second.refused


def test_parts_of_a_shapefile_that_lead_elsewhere_are_refused(tmp_path: Path, settings: Settings) -> None:
    allowed, elsewhere = tmp_path / "allowed", tmp_path / "elsewhere"
    allowed.mkdir()
    elsewhere.mkdir()
    settings.THAWLOOP_DATA_ROOTS = [str(allowed)]
    (elsewhere / "secret.dbf").write_bytes(b"secret")
    (allowed / "x.shp").write_bytes(b"\x00\x00\x27\x0a")
    (allowed / "x.shx").write_bytes(b"\x00\x00\x27\x0a")
    (allowed / "x.dbf").symlink_to(elsewhere / "secret.dbf")
    with pytest.raises(VectorFileRefused, match=r"x\.dbf beside x\.shp leads elsewhere"):
        read_vector_file(allowed / "x.shp")
