"""Make one polygonal geometry of record out of whatever a feature holds, and say what was done to it."""

from dataclasses import dataclass

import numpy as np
import shapely
from pyproj import Geod
from shapely.geometry import GeometryCollection, LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.vectors.projection import NotOnEarth, Projection, polygons_of, unwrap
from thawloop.catalog.wrapping import wrap_longitudes

WGS84 = Geod(ellps="WGS84")
BUFFER_VERTICES = 32


@dataclass(frozen=True)
class Cleaned:
    """A feature's geometry of record, or why it has none.

    Attributes:
        polygons: Valid MultiPolygon in EPSG:4326 within ±180/±90; None if refused.
        refused: Why there is no geometry; empty otherwise.
        repaired: What had to be mended; empty for a geometry that was fine.
        area_change: Area after repair relative to before, minus 1; 0 for a geometry that was fine.
        is_point: A point without a buffer: refused, but a whole file of them deserves its own advice.
    """

    polygons: MultiPolygon | None
    refused: str = ""
    repaired: str = ""
    area_change: float = 0.0
    is_point: bool = False


def clean(geometry: BaseGeometry, projection: Projection, *, buffer_points: float | None = None) -> Cleaned:
    """Reproject, take the polygonal parts, repair, and cut at the antimeridian.

    Args:
        geometry: As the file has it, Z, M, curves and collections included.
        projection: To EPSG:4326.
        buffer_points: Radius in metres of the circle that stands for a point; None refuses points.
    """
    if geometry.is_empty:
        return Cleaned(None, refused="has an empty geometry")
    try:
        flat = projection.geographic(geometry)
        if buffer_points is not None:
            flat = circles(flat, buffer_points)
        parts = _polygonal(flat)
        if not parts:
            return _no_polygon(flat)
        return _repair(unwrap(parts[0] if len(parts) == 1 else MultiPolygon(parts)))
    except NotOnEarth as error:
        return Cleaned(None, refused=str(error))


def _no_polygon(geometry: BaseGeometry) -> Cleaned:
    if isinstance(geometry, Point | MultiPoint):
        return Cleaned(None, refused="is a point, not a polygon", is_point=True)
    kind = "a line" if isinstance(geometry, LineString | MultiLineString) else f"a {geometry.geom_type}"
    return Cleaned(None, refused=f"is {kind}, not a polygon")


def _polygonal(geometry: BaseGeometry) -> list[Polygon]:
    """Polygons however deep, flat ones included: those are refused later with the right reason."""
    if isinstance(geometry, Polygon):
        return [] if geometry.is_empty else [geometry]
    if isinstance(geometry, MultiPolygon | GeometryCollection):
        return [polygon for part in geometry.geoms for polygon in _polygonal(part)]
    return []


def _repair(geometry: BaseGeometry) -> Cleaned:
    repaired, change = "", 0.0
    if not geometry.is_valid:
        repaired = shapely.is_valid_reason(geometry).split("[")[0].strip().lower()
        before = abs(geometry.area)
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
        change = geometry.area / before - 1 if before > 0 else 0.0
    parts = polygons_of(geometry)
    if not parts:
        return Cleaned(None, refused="has no area")
    cut = MultiPolygon(polygons_of(wrap_longitudes(MultiPolygon(parts))))
    if not cut.is_valid:
        cut = MultiPolygon(polygons_of(shapely.make_valid(cut, method="structure", keep_collapsed=False)))
    if cut.is_empty:
        return Cleaned(None, refused="has no area")
    return Cleaned(cut, repaired=repaired, area_change=change)


def circles(geometry: BaseGeometry, radius: float) -> BaseGeometry:
    """Points as geodesic circles of `radius` metres; anything else unchanged."""
    if isinstance(geometry, Point):
        bearings = np.linspace(360, 0, BUFFER_VERTICES, endpoint=False)
        count = np.full(BUFFER_VERTICES, 1.0)
        longitudes, latitudes, _ = WGS84.fwd(geometry.x * count, geometry.y * count, bearings, radius * count)
        return Polygon(np.column_stack([longitudes, latitudes]))
    if isinstance(geometry, MultiPoint):
        return GeometryCollection([circles(point, radius) for point in geometry.geoms])
    return geometry
