"""Make one valid polygonal geometry of whatever a feature holds, and say what was done to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from shapely.geometry import (
    GeometryCollection,
    LineString,
    MultiLineString,
    MultiPoint,
    MultiPolygon,
    Point,
    Polygon,
    box,
)
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.vectors.projection import NotOnEarth, Projection, polygons_of, unwrap
from thawloop.catalog.wrapping import wrap_longitudes

WGS84 = Geod(ellps="WGS84")
BUFFER_VERTICES = 32
NO_SURFACE = "a ring with too few points, or a surface type that is not a polygon"
_POLYGON, _MULTIPOLYGON = 3, 6


@dataclass(frozen=True)
class Cleaned:
    """A feature's geometry of record, or why it has none.

    Attributes:
        polygons: Valid MultiPolygon in EPSG:4326 within ±180/±90; None if refused.
        refused: Why there is no geometry; empty otherwise.
        repaired: What had to be mended; empty for a geometry that was fine.
        area_change: Area after repair relative to before, minus 1; 0 for a geometry that was fine, 1 for an outline
            whose parts cancelled each other out, like an 8.
        place: Of a refused geometry: west, south, east, north in degrees; None if that is unknown.
        is_point: A point without a buffer: refused, but a whole file of them deserves its own advice.
        is_empty: It holds no geometry at all, or one that nothing can read.
        has_polygon: False for nothing, points, lines and what has no area: it was never a polygon.
    """

    polygons: MultiPolygon | None
    refused: str = ""
    repaired: str = ""
    area_change: float = 0.0
    place: list[float] | None = None
    is_point: bool = False
    is_empty: bool = False
    has_polygon: bool = True


def clean(raw: bytes | str, projection: Projection, *, buffer_points: float | None = None) -> Cleaned:
    """Decode, reproject, take the polygonal parts, repair, and cut at the antimeridian.

    Args:
        raw: WKB or WKT as the file has it, Z, M, curves and collections included.
        projection: To EPSG:4326.
        buffer_points: Radius in metres of the circle that stands for a point; None refuses points.
    """
    try:
        geometry = decode(raw)
        if geometry is None:
            what = f"broken WKT (`{raw[:40]}`)" if isinstance(raw, str) else f"a broken geometry ({NO_SURFACE})"
            return Cleaned(None, refused=f"has {what}", is_empty=True)
    except shapely.errors.GEOSException as error:
        what = "broken WKT" if isinstance(raw, str) else "a broken geometry"
        return Cleaned(None, refused=f"has {what} ({str(error)[:120]})", is_empty=True)
    try:
        cleaned = clean_geometry(geometry, projection, buffer_points=buffer_points)
    except NotOnEarth as error:
        return Cleaned(None, refused=str(error))
    except (shapely.errors.GEOSException, MemoryError) as error:
        reason = "too little memory" if isinstance(error, MemoryError) or "bad_alloc" in str(error) else str(error)
        cleaned = Cleaned(None, refused=f"cannot be repaired ({reason[:120]}): simplify its outline")
    return cleaned if cleaned.polygons is not None else replace(cleaned, place=place_of(geometry, projection))


def place_of(geometry: BaseGeometry, projection: Projection) -> list[float] | None:
    """Bounds of a geometry, even an invalid one: west, south, east, north in degrees.

    East may be beyond 180. None for a geometry that is empty or has no place on Earth.
    """
    west, south, east, north = geometry.bounds if not geometry.is_empty else (np.nan,) * 4
    speck = 1e-9 * max(1.0, abs(west), abs(south), abs(east), abs(north))
    if not np.isfinite(speck):
        return None
    try:
        around = unwrap(projection.geographic(box(west - speck, south - speck, east + speck, north + speck)))
    except (NotOnEarth, shapely.errors.GEOSException):
        return None
    return [float(bound) for bound in around.bounds]


def clean_geometry(geometry: BaseGeometry, projection: Projection, *, buffer_points: float | None = None) -> Cleaned:
    """As `clean`, for a geometry in the projection's CRS.

    Raises:
        NotOnEarth: It has no place in EPSG:4326.
    """
    if geometry.is_empty:
        return Cleaned(None, refused="has an empty geometry", has_polygon=False)
    flat = projection.geographic(geometry)
    if buffer_points is not None:
        flat = circles(flat, buffer_points)
    parts = _polygonal(flat)
    if not parts:
        return _no_polygon(flat)
    return _repair([unwrap(part) for part in parts])


def clean_all(
    raw: Sequence[bytes | str | None], projection: Projection, *, buffer_points: float | None = None
) -> list[Cleaned]:
    """As `clean` for each, None for none; polygons that need nothing but reprojecting are done together."""
    cleaned = _sound(raw, projection)
    return [
        done or (Cleaned(None) if one is None else clean(one, projection, buffer_points=buffer_points))
        for one, done in zip(raw, cleaned, strict=True)
    ]


def _sound(raw: Sequence[bytes | str | None], projection: Projection) -> list[Cleaned | None]:
    """What is a valid polygon on one side of the antimeridian; None where `clean` must look closer."""
    nothing: list[Cleaned | None] = [None] * len(raw)
    try:
        shapes = np.array(
            shapely.from_wkb([one if isinstance(one, bytes) else None for one in raw], on_invalid="fix"), dtype=object
        )
    except shapely.errors.GEOSException:
        return nothing
    polygonal = np.isin(shapely.get_type_id(shapes), (_POLYGON, _MULTIPOLYGON)) & ~shapely.is_empty(shapes)
    shapes[~polygonal] = None
    flat = shapely.force_2d(shapes)
    if projection.has_long_edges(flat):
        polygonal &= [shape is not None and not projection.has_long_edges(shape) for shape in flat]
        flat[~polygonal] = None
    moved = shapely.transform(flat, projection.transform)
    sound = polygonal & _on_one_side(moved)
    sound[sound] = shapely.is_valid(moved[sound])
    for index in np.flatnonzero(sound):
        shape = moved[index]
        nothing[index] = Cleaned(shape if isinstance(shape, MultiPolygon) else MultiPolygon([shape]))
    return nothing


def _on_one_side(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    west, south, east, north = shapely.bounds(shapes).T
    finite: NDArray[np.bool_] = np.isfinite(np.stack([west, south, east, north])).all(axis=0)
    coordinates, owner = shapely.get_coordinates(shapes, return_index=True)
    finite[owner[~np.isfinite(coordinates).all(axis=1)]] = False
    with np.errstate(invalid="ignore"):
        inside = (west >= -180) & (east <= 180) & (east - west < 180) & (south >= -90) & (north <= 90)
    return np.asarray(finite & inside)


def decode(raw: bytes | str) -> BaseGeometry | None:
    """Geometry from WKB or WKT, closing unclosed rings; None where that cannot help.

    Raises:
        GEOSException: It is neither.
    """
    if isinstance(raw, str):
        return shapely.from_wkt(raw, on_invalid="fix")
    return shapely.from_wkb(raw, on_invalid="fix")


def _no_polygon(geometry: BaseGeometry) -> Cleaned:
    if isinstance(geometry, Point | MultiPoint):
        return Cleaned(None, refused="is a point, not a polygon", is_point=True, has_polygon=False)
    kind = "a line" if isinstance(geometry, LineString | MultiLineString) else f"a {geometry.geom_type}"
    return Cleaned(None, refused=f"is {kind}, not a polygon", has_polygon=False)


def _polygonal(geometry: BaseGeometry) -> list[Polygon]:
    """Polygons however deep, flat ones included: those are refused later with the right reason."""
    if isinstance(geometry, Polygon):
        return [] if geometry.is_empty else [geometry]
    if isinstance(geometry, MultiPolygon | GeometryCollection):
        return [polygon for part in geometry.geoms for polygon in _polygonal(part)]
    return []


def _repair(parts: Sequence[Polygon | MultiPolygon]) -> Cleaned:
    pieces = [piece for part in parts for piece in (part.geoms if isinstance(part, MultiPolygon) else [part])]
    geometry: BaseGeometry = pieces[0] if len(pieces) == 1 else MultiPolygon(pieces)
    repaired, change = "", 0.0
    if not geometry.is_valid:
        repaired = shapely.is_valid_reason(geometry).split("[")[0].strip().lower()
        before = abs(geometry.area)
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
        change = geometry.area / before - 1 if before > 0 else float(geometry.area > 0)
    polygons = polygons_of(geometry)
    if not polygons:
        return Cleaned(None, refused="has no area", has_polygon=False)
    # Rings run on beyond ±180 now: an edge of more than half the globe is a long one, not a jump.
    cut = MultiPolygon(polygons_of(wrap_longitudes(MultiPolygon(polygons), jumps=False)))
    if not cut.is_valid:
        cut = MultiPolygon(polygons_of(shapely.make_valid(cut, method="structure", keep_collapsed=False)))
    if cut.is_empty:
        return Cleaned(None, refused="has no area", has_polygon=False)
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
