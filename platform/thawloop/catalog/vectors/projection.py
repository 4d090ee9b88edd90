"""From a file's CRS to EPSG:4326, with the antimeridian and the poles in mind."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry import GeometryCollection, LinearRing, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.wrapping import outline_to_polygon, unwrap_ring, winds_around_pole

FULL_CIRCLE = 360.0
# Edges that are straight in a projection bend in longitude and latitude: at 71 degrees north, 0.2 m on so many metres.
LONGEST_EDGE = 2_000.0
MOST_VERTICES = 2_000_000


class NotOnEarth(ValueError):
    """A geometry that has no place in EPSG:4326; the message says why."""


@dataclass(frozen=True)
class Projection:
    """A transformation of coordinates [N, 2] (x, y order) to longitude and latitude.

    Attributes:
        crs: Of the file.
        transformer: None where the file is in EPSG:4326 already.
        longest_edge: Longer edges get vertices in between before they are transformed (units of the CRS).
    """

    crs: CRS
    transformer: Transformer | None
    longest_edge: float = np.inf

    def geographic(self, geometry: BaseGeometry) -> BaseGeometry:
        """The geometry in longitude and latitude; may still cross ±180.

        Raises:
            NotOnEarth: Coordinates that are not finite or lie outside the CRS.
        """
        flat = shapely.force_2d(geometry)
        if self.transformer is None:
            return _checked(flat)
        moved = _checked(self._moved(flat))
        if self.has_long_edges(flat):
            if shapely.length(flat) / self.longest_edge > MOST_VERTICES:
                raise NotOnEarth("has an outline longer than any on Earth")
            moved = _checked(self._moved(_densified(flat, self.longest_edge)))
        return moved

    def has_long_edges(self, geometry: BaseGeometry) -> bool:
        """Whether edges may bend visibly on the way to longitude and latitude. Gaps between parts count, too."""
        steps = np.diff(shapely.get_coordinates(geometry), axis=0)
        return bool(np.isfinite(self.longest_edge) and (np.abs(steps) > self.longest_edge / np.sqrt(2)).any())

    def transform(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates [N, 2] as longitude and latitude; not finite where there is none."""
        if self.transformer is None:
            return coordinates
        x, y = self.transformer.transform(coordinates[:, 0], coordinates[:, 1])
        return np.column_stack([x, y])

    def _moved(self, flat: BaseGeometry) -> BaseGeometry:
        try:
            return shapely.transform(flat, self.transform)
        except ProjError as error:
            raise NotOnEarth("has coordinates outside its coordinate system") from error


def _densified(geometry: BaseGeometry, longest: float) -> BaseGeometry:
    """The geometry with vertices in between on edges of its polygons; `shapely.segmentize` mends silently as well."""
    if isinstance(geometry, Polygon):
        rings = [_densified_ring(np.array(ring.coords), longest) for ring in (geometry.exterior, *geometry.interiors)]
        return Polygon(rings[0], rings[1:])
    if isinstance(geometry, MultiPolygon | GeometryCollection):
        return type(geometry)([_densified(part, longest) for part in geometry.geoms])
    return geometry


def _densified_ring(points: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    steps = np.diff(points, axis=0)
    count = np.maximum(1, np.ceil(np.hypot(*steps.T) / longest).astype(int))
    edge = np.repeat(np.arange(len(steps)), count)
    within = (np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)) / count[edge]
    return np.vstack([points[edge] + within[:, None] * steps[edge], points[-1:]])


def _checked(geometry: BaseGeometry) -> BaseGeometry:
    coordinates = shapely.get_coordinates(geometry)
    if not np.isfinite(coordinates).all():
        raise NotOnEarth("has coordinates outside its coordinate system")
    if coordinates.size and np.abs(coordinates[:, 1]).max() > 90.0 + 1e-9:
        raise NotOnEarth("has latitudes beyond ±90: its coordinates are not degrees")
    if coordinates.size and np.abs(coordinates[:, 0]).max() > FULL_CIRCLE:
        raise NotOnEarth("has longitudes beyond ±360: its coordinates are not degrees")
    return geometry


def projection_of(crs: str | None, *, override: str | None, name: str) -> Projection:
    """The projection from a file's CRS, or from the one the user names.

    Raises:
        VectorFileRefused: Neither is known, or it cannot be transformed to EPSG:4326.
    """
    text = override or crs
    if not text:
        raise VectorFileRefused(
            f"{name} does not say its coordinate system: give it, e.g. --crs EPSG:32608 (in a campaign file `crs`)."
        )
    try:
        found = CRS.from_user_input(text)
        target = CRS.from_epsg(4326)
        if found.is_geographic and found.to_2d().equals(target, ignore_axis_order=True):
            return Projection(found, None)
        return Projection(found, Transformer.from_crs(found, target, always_xy=True), _longest_edge(found))
    except (CRSError, ProjError) as error:
        remedy = "use a code such as EPSG:32608" if override else "give the right one with --crs EPSG:CODE"
        raise VectorFileRefused(f"{name}: the coordinate system `{text[:80]}` cannot be used; {remedy}.") from error


def _longest_edge(crs: CRS) -> float:
    metres = crs.axis_info[0].unit_conversion_factor if crs.is_projected and crs.axis_info else 0.0
    return LONGEST_EDGE / metres if metres else np.inf


def unwrap(polygon: Polygon) -> Polygon | MultiPolygon:
    """A polygon whose rings run on beyond ±180 instead of jumping to the other side.

    One that goes around a pole comes as MultiPolygon within ±180, closed through the pole's edge of the map.
    """
    if polygon.is_empty:
        return polygon
    rings = [_unwrapped(ring) for ring in (polygon.exterior, *polygon.interiors) if not ring.is_empty]
    if any(winds_around_pole(ring) for ring in rings):
        outer, *inner = [outline_to_polygon(ring) for ring in rings]
        return MultiPolygon(polygons_of(outer.difference(shapely.union_all(inner))))
    outer, *holes = rings
    middle = (outer[:, 0].min() + outer[:, 0].max()) / 2
    for hole in holes:
        hole[:, 0] += FULL_CIRCLE * round((middle - hole[:, 0].mean()) / FULL_CIRCLE)
    return Polygon(outer, holes)


def _unwrapped(ring: LinearRing) -> NDArray[np.float64]:
    points = np.array(ring.coords)[:, :2]
    if _spans_the_map(points):
        return points
    points = unwrap_ring(points)
    if not winds_around_pole(points):
        points[-1] = points[0]
    return points


def _spans_the_map(points: NDArray[np.float64]) -> bool:
    """Whether edges that look like jumps run from one side of the map to the other: a box from -180 to 180."""
    jumps = np.flatnonzero(np.abs(np.diff(points[:, 0])) > FULL_CIRCLE / 2)
    ends = points[np.concatenate([jumps, jumps + 1]), 0]
    return len(jumps) > 0 and bool((np.abs(ends) == FULL_CIRCLE / 2).all()) and Polygon(points).is_valid


def polygons_of(geometry: Any) -> list[Polygon]:
    """Every polygon with an area in a geometry, collections of collections included."""
    if geometry is None or geometry.is_empty:
        return []
    if isinstance(geometry, Polygon):
        return [geometry] if geometry.area > 0 else []
    return [polygon for part in getattr(geometry, "geoms", ()) for polygon in polygons_of(part)]
