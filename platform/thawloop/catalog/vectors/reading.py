"""Read a vector file: every feature as a clean geometry of record, or with the reason why it has none."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import shapely
from django.conf import settings
from shapely.geometry import MultiPolygon

from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.vectors.sandbox import Overrun, ask
from thawloop.catalog.vectors.staging import staged


@dataclass(frozen=True)
class Feature:
    """One record of a file.

    Attributes:
        id: The feature's id in the file (FID, or line number of a table).
        polygons: Valid MultiPolygon in EPSG:4326 within ±180/±90, cut at the antimeridian; None if refused.
        properties: Attributes that JSON can hold.
        refused: Why there is no geometry, completing "feature 7 …"; empty otherwise.
        is_empty: It holds no geometry at all, or one that nothing can read.
        is_point: It is a point and no radius was given: refused, but a whole file of them deserves its own advice.
        has_polygon: False for nothing, points, lines and what has no area: it was never a polygon.
        repaired: What had to be mended; empty for a geometry that was fine.
        area_change: Area after repair relative to before, minus 1; 0 for a geometry that was fine, 1 for an outline
            whose parts cancelled each other out, like an 8.
        place: Of a refused geometry: west, south, east (may be beyond 180), north in degrees; None if unknown.
    """

    id: str
    polygons: MultiPolygon | None
    properties: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    is_empty: bool = False
    is_point: bool = False
    has_polygon: bool = True
    repaired: str = ""
    area_change: float = 0.0
    place: list[float] | None = None


@dataclass(frozen=True)
class VectorFile:
    """One layer of a file.

    Attributes:
        name: Of the file, as people know it.
        crs: What the file says its coordinates are (WKT or `AUTHORITY:code`); None if it says nothing.
        fields: Names of the attributes.
        features: In the file's order.
    """

    name: str
    crs: str | None
    fields: list[str]
    features: list[Feature]


def read_vector_file(
    path: Path, *, layer: str | None = None, crs: str | None = None, buffer_points: float | None = None
) -> VectorFile:
    """Read every feature of one layer, reprojected, repaired and cut at the antimeridian.

    A feature that costs too much memory or time is refused like any other that cannot be used; the rest is read.

    Args:
        path: GeoJSON, GeoPackage, Shapefile, KML, FlatGeobuf, CSV, tab-separated text or MapInfo file, plain or
            zipped. The caller has checked that it may be read.
        layer: Which layer, where the file has several.
        crs: Coordinate system, where the file names none or a wrong one.
        buffer_points: Radius in metres of the circles that stand for points; None refuses points.

    Raises:
        VectorFileRefused: The file cannot be read, is too large or takes too long, or lacks a layer or a CRS.
    """
    with staged(path, max_bytes=settings.THAWLOOP_MAX_VECTOR_BYTES, layer=layer) as file:
        request = {"operation": "read", "file": str(file), "name": path.name, "layer": layer, "crs": crs}
        return _FileReader(path.name, request | {"buffer_points": buffer_points}).file()


class _FileReader:
    """Reads one file, going on behind the feature at which a child was ended."""

    def __init__(self, name: str, request: dict[str, Any]) -> None:
        self._name, self._request = name, request
        self._facts: dict[str, Any] | None = None
        self._features: list[Feature] = []
        self._announced: str | None = None
        self._place: list[float] | None = None
        self._refusal = ""
        self._until = time.monotonic() + settings.THAWLOOP_VECTOR_SECONDS

    def file(self) -> VectorFile:
        careful = False
        while True:
            known = len(self._features)
            try:
                for message, blob in ask(self._request | {"start": known, "careful": careful}):
                    self._take(message, blob)
                break
            except Overrun as overrun:
                if self._announced is not None:
                    refused = f"{overrun}: simplify its outline"
                    self._features.append(Feature(self._announced, None, refused=refused, place=self._place))
                    self._announced = None
                elif self._facts is None or (careful and len(self._features) == known):
                    raise VectorFileRefused(f"{self._name} {overrun}: simplify its outlines, or split it.") from overrun
                # The batch is read again feature by feature, to find the one that is to blame.
                careful = True
        if self._refusal or self._facts is None:
            raise VectorFileRefused(self._refusal)
        return VectorFile(self._name, self._facts["crs"], self._facts["fields"], self._features)

    def _take(self, message: dict[str, Any], blob: bytes) -> None:
        if time.monotonic() > self._until:
            raise VectorFileRefused(
                f"{self._name} takes more than {settings.THAWLOOP_VECTOR_SECONDS:g} s to read: split it, simplify its "
                "outlines, or raise THAWLOOP_VECTOR_SECONDS."
            )
        if "refused" in message:
            self._refusal = message["refused"]
        elif "next" in message:
            self._announced, self._place = message["next"], None
        elif "place" in message:
            self._place = message["place"]
        elif "features" in message:
            self._features += _features(message, blob)
            self._announced = None
        else:
            self._facts = message


def _features(message: dict[str, Any], blob: bytes) -> Iterator[Feature]:
    rows = message["features"]
    wkb, position = [], 0
    for row in rows:
        size = row.pop("size")
        wkb.append(blob[position : position + size] or None)
        position += size
    for row, shape in zip(rows, shapely.from_wkb(wkb), strict=True):
        yield Feature(polygons=shape, **row)
