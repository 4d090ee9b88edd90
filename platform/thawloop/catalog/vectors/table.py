"""Tables with geometry: CSV and tab-separated text with a WKT column, or with latitude and longitude columns."""

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import Point

from thawloop.catalog.errors import VectorFileRefused

Row = tuple[str, bytes | str | None, dict[str, Any], str]

NO_GEOMETRY = "has no geometry"

WKT_COLUMNS = ("wkt", "wkt_geom", "geometry", "geom", "the_geom", "shape")
LATITUDE_COLUMNS = ("latitude", "lat", "centroidlat", "cntrdlt", "location_center_lat", "y")
LONGITUDE_COLUMNS = ("longitude", "lon", "lng", "long", "centroidlon", "cntrdln", "location_center_lon", "x")
MAX_TEXT = 2_000
MAX_ROWS = 1_000_000


def read_table(path: Path, name: str) -> tuple[str | None, list[str], list[Row]]:
    """Read the CRS, if the table names it, the fields, and rows of (line number, WKT or WKB, attributes, problem).

    Latitude and longitude columns are EPSG:4326 by name; a WKT column names its CRS only as EWKT (`SRID=...;`).

    Raises:
        VectorFileRefused: No column holds geometry, or the text is not a table.
    """
    text = _decode(path)
    lines = text.replace("\x00", "").splitlines(keepends=True)
    skipped = _header_comment(lines)
    # A polygon's WKT is far longer than the module's default bound; the file's size is bounded already.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    delimiter = "\t" if path.suffix == ".tab" else _delimiter(lines[skipped] if len(lines) > skipped else "")
    reader = csv.reader(lines[skipped:], delimiter=delimiter, skipinitialspace=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        wkt, latitude, longitude = _geometry_columns(header, name)
        rows: list[Row] = []
        srids: set[str] = set()
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(rows) >= MAX_ROWS:
                raise VectorFileRefused(f"{name} has more than {MAX_ROWS:,} rows: split it.")
            cells = cells + [""] * (len(header) - len(cells))
            geometry, problem = (
                _parse_wkt(cells[wkt], srids) if wkt is not None else _parse_point(cells[longitude], cells[latitude])
            )
            rows.append((str(skipped + reader.line_num), geometry, _properties(header, cells, wkt), problem))
    except csv.Error as error:
        raise VectorFileRefused(f"{name}, line {skipped + reader.line_num}: not a table ({error}).") from error
    if len(srids) > 1:
        raise VectorFileRefused(f"{name} mixes coordinate systems (SRID {', '.join(sorted(srids))}): use one.")
    crs = "EPSG:4326" if wkt is None else f"EPSG:{srids.pop()}" if srids else None
    return crs, [column for index, column in enumerate(header) if column and index != wkt], rows


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("iso-8859-1")


def _header_comment(lines: list[str]) -> int:
    """How many lines the `/* ... */` description takes that PANGAEA puts above its tables."""
    if not lines or not lines[0].lstrip().startswith("/*"):
        return 0
    return next((number for number, line in enumerate(lines, 1) if "*/" in line), 0)


def _delimiter(header: str) -> str:
    return max(",;\t|", key=header.count)


def _geometry_columns(header: list[str], name: str) -> tuple[int | None, int, int]:
    lower = [re.sub(r"\W+", "_", column.lower()).strip("_") for column in header]

    def find(names: tuple[str, ...]) -> int | None:
        return next((lower.index(known) for known in names if known in lower), None)

    wkt, latitude, longitude = find(WKT_COLUMNS), find(LATITUDE_COLUMNS), find(LONGITUDE_COLUMNS)
    if wkt is None and (latitude is None or longitude is None):
        raise VectorFileRefused(
            f"{name} has no geometry column among {', '.join(header[:12]) or 'its columns'}: add a `wkt` column with "
            "polygons."
        )
    return wkt, latitude or 0, longitude or 0


def _parse_wkt(text: str, srids: set[str]) -> tuple[str | None, str]:
    text = text.strip()
    if match := re.match(r"SRID=(\d+);", text, re.IGNORECASE):
        srids.add(match[1])
        text = text[match.end() :]
    return (text, "") if text else (None, NO_GEOMETRY)


def _parse_point(longitude: str, latitude: str) -> tuple[bytes | None, str]:
    if not longitude.strip() and not latitude.strip():
        return None, NO_GEOMETRY
    try:
        return shapely.to_wkb(Point(float(longitude), float(latitude))), ""
    except ValueError:
        return None, f"has no numbers as coordinates (`{latitude[:20]}`, `{longitude[:20]}`)"


def _properties(header: list[str], cells: list[str], wkt: int | None) -> dict[str, Any]:
    def pairs() -> Iterator[tuple[str, Any]]:
        for index, column in enumerate(header):
            if index != wkt and column:
                yield column, cells[index].strip()[:MAX_TEXT] or None

    return dict(pairs())
