"""From a file's CRS to EPSG:4326, with the antimeridian and the poles in mind."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry import LinearRing, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.wrapping import unwrap_ring, winds_around_pole

FULL_CIRCLE = 360.0


class NotOnEarth(ValueError):
    """A geometry that has no place in EPSG:4326; the message says why."""


@dataclass(frozen=True)
class Projection:
    """A transformation of coordinates [N, 2] (x, y order) to longitude and latitude."""

    crs: CRS
    transformer: Transformer | None

    def geographic(self, geometry: BaseGeometry) -> BaseGeometry:
        """The geometry in longitude and latitude; may still cross ±180.

        Raises:
            NotOnEarth: Coordinates that are not finite or lie outside the CRS.
        """
        flat = shapely.force_2d(geometry)
        if self.transformer is None:
            result = flat
        else:
            try:
                result = shapely.transform(flat, self._transform)
            except ProjError as error:
                raise NotOnEarth("has coordinates outside its coordinate system") from error
        coordinates = shapely.get_coordinates(result)
        if not np.isfinite(coordinates).all():
            raise NotOnEarth("has coordinates outside its coordinate system")
        if coordinates.size and np.abs(coordinates[:, 1]).max() > 90.0 + 1e-9:
            raise NotOnEarth("has latitudes beyond ±90: its coordinates are no degrees")
        if coordinates.size and np.abs(coordinates[:, 0]).max() > FULL_CIRCLE:
            raise NotOnEarth("has longitudes beyond ±360: its coordinates are no degrees")
        return result

    def _transform(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        assert self.transformer is not None
        x, y = self.transformer.transform(coordinates[:, 0], coordinates[:, 1])
        return np.column_stack([x, y])


def projection_of(crs: str | None, *, override: str | None, name: str) -> Projection:
    """The projection from a file's CRS, or from the one the user names.

    Raises:
        VectorFileRefused: Neither is known, or it cannot be transformed to EPSG:4326.
    """
    text = override or crs
    if not text:
        raise VectorFileRefused(f"{name} does not say its coordinate system: give it, e.g. --crs EPSG:32608.")
    try:
        found = CRS.from_user_input(text)
        target = CRS.from_epsg(4326)
        if found.is_geographic and found.to_2d().equals(target, ignore_axis_order=True):
            return Projection(found, None)
        return Projection(found, Transformer.from_crs(found, target, always_xy=True))
    except (CRSError, ProjError) as error:
        remedy = "use a code such as EPSG:32608" if override else "give the right one with --crs EPSG:CODE"
        raise VectorFileRefused(f"{name}: the coordinate system `{text[:80]}` cannot be used; {remedy}.") from error


def unwrap(geometry: BaseGeometry) -> BaseGeometry:
    """Polygonal geometry whose rings run on beyond ±180 instead of jumping to the other side."""
    if isinstance(geometry, Polygon):
        return _unwrap(geometry)
    if isinstance(geometry, MultiPolygon):
        return MultiPolygon([_unwrap(part) for part in geometry.geoms])
    return geometry


def _unwrap(polygon: Polygon) -> Polygon:
    if polygon.is_empty:
        return polygon
    outer = _unwrap_ring(polygon.exterior)
    middle = (outer[:, 0].min() + outer[:, 0].max()) / 2
    holes = []
    for ring in polygon.interiors:
        if ring.is_empty:
            continue
        hole = _unwrap_ring(ring)
        hole[:, 0] += FULL_CIRCLE * round((middle - hole[:, 0].mean()) / FULL_CIRCLE)
        holes.append(hole)
    return Polygon(outer, holes)


def _unwrap_ring(ring: LinearRing) -> NDArray[np.float64]:
    points = unwrap_ring(np.array(ring.coords)[:, :2])
    if winds_around_pole(points):
        raise NotOnEarth("goes around a pole: no landform does")
    points[-1] = points[0]
    return points


def polygons_of(geometry: Any) -> list[Polygon]:
    """Every polygon with an area in a geometry, collections of collections included."""
    if geometry is None or geometry.is_empty:
        return []
    if isinstance(geometry, Polygon):
        return [geometry] if geometry.area > 0 else []
    return [polygon for part in getattr(geometry, "geoms", ()) for polygon in polygons_of(part)]
