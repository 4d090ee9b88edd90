"""Polygons at the antimeridian and the poles: stored with longitudes in [-180, 180], split at ±180 degrees."""

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry


def unwrap_ring(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make longitudes continuous along a closed ring [N, 2]: a jump of more than 180 degrees is a crossing."""
    unwrapped = ring.copy()
    unwrapped[:, 0] = np.degrees(np.unwrap(np.radians(ring[:, 0])))
    # Keep exact the numbers that no jump moved: radians and back cost the last digit.
    turns = np.round((unwrapped[:, 0] - ring[:, 0]) / 360.0)
    unwrapped[:, 0] = ring[:, 0] + 360.0 * turns
    return unwrapped


def winds_around_pole(ring: NDArray[np.float64]) -> bool:
    """Whether an unwrapped closed ring runs once around the globe, and so encloses a pole."""
    return abs(ring[-1, 0] - ring[0, 0]) > 180.0


def outline_to_polygon(ring: NDArray[np.float64]) -> MultiPolygon:
    """A closed ring of (longitude, latitude), densified, as a MultiPolygon within ±180 degrees.

    A ring around a pole is closed through the pole's edge of the map (latitude ±90).
    """
    unwrapped = unwrap_ring(ring)
    if winds_around_pole(unwrapped):
        pole = 90.0 if unwrapped[:, 1].mean() > 0 else -90.0
        ends = [(unwrapped[-1, 0], pole), (unwrapped[0, 0], pole)]
        unwrapped = np.vstack([unwrapped, ends])
    return _cut(Polygon(unwrapped))


def wrap_longitudes(geometry: BaseGeometry, *, jumps: bool = True) -> BaseGeometry:
    """Bring a polygonal geometry within ±180 degrees, splitting what crosses; others come back as they are.

    A Polygon that crosses nothing stays the same Polygon. Rings may run on (179 → 181); with `jumps`, an edge from 179
    to -179 is a crossing too, as reprojection leaves it. Without, it is a long edge, as RFC 7946 reads files.
    """
    polygons = [p for p in shapely.get_parts(geometry) if isinstance(p, Polygon)]
    crossing = [_crosses(p, jumps) for p in polygons]
    if not any(crossing):
        return geometry
    pieces = [_cut_with_holes(p, jumps).geoms if c else [p] for p, c in zip(polygons, crossing, strict=True)]
    return MultiPolygon([piece for group in pieces for piece in group])


def _crosses(polygon: Polygon, jumps: bool) -> bool:
    ring = np.asarray(polygon.exterior.coords)[:, :2]
    if len(ring) == 0:
        return False
    return bool(np.abs(ring[:, 0]).max() > 180.0 or (jumps and np.abs(np.diff(ring[:, 0])).max() > 180.0))


def _cut_with_holes(polygon: Polygon, jumps: bool) -> MultiPolygon:
    if not jumps:
        return _cut(polygon)
    exterior = unwrap_ring(np.asarray(polygon.exterior.coords)[:, :2])
    middle = exterior[:, 0].mean()
    holes = []
    for interior in polygon.interiors:
        hole = unwrap_ring(np.asarray(interior.coords)[:, :2])
        hole[:, 0] += 360.0 * np.round((middle - hole[:, 0].mean()) / 360.0)
        holes.append(hole)
    return _cut(Polygon(exterior, holes))


def _cut(polygon: Polygon) -> MultiPolygon:
    """Split an unwrapped polygon at every odd multiple of 180 degrees and shift the pieces into [-180, 180]."""
    west, _, east, _ = polygon.bounds
    pieces: list[Polygon] = []
    for turn in range(int(np.floor((west + 180.0) / 360.0)), int(np.ceil((east - 180.0) / 360.0)) + 1):
        inside = polygon
        if west < 360.0 * turn - 180.0 or east > 360.0 * turn + 180.0:
            inside = polygon.intersection(box(360.0 * turn - 180.0, -91.0, 360.0 * turn + 180.0, 91.0))
        moved = shapely.transform(inside, lambda xy, turn=turn: xy - [360.0 * turn, 0.0])
        pieces += [p for p in shapely.get_parts(moved) if isinstance(p, Polygon) and not p.is_empty]
    # Around a pole the first and the last piece meet along a meridian: they are one.
    return MultiPolygon([p for p in shapely.get_parts(shapely.union_all(pieces)) if isinstance(p, Polygon)])
