"""Areas and perimeters of many polygons at once, on the WGS 84 ellipsoid."""

import numpy as np
import shapely
from numpy.typing import NDArray

from thawloop.catalog.geometry import WGS84, geodesic_area

# Larger polygons are measured along geodesics one by one; up to here both ways agree to a hundred-millionth or so.
SMALL_DEGREES = 0.05
_A, _E2 = WGS84.a, WGS84.es
_E = np.sqrt(_E2)


def _authalic(sine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Snyder 1987, "Map Projections: A Working Manual", equation 3-12, for the sine of the latitude."""
    return (1 - _E2) * (sine / (1 - _E2 * sine**2) + np.arctanh(_E * sine) / _E)


_POLE = float(_authalic(np.array(1.0)))
_AUTHALIC_RADIUS = _A * np.sqrt(_POLE / 2)


def measures(shapes: NDArray[np.object_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area [N] in square metres and perimeter [N] in metres of MultiPolygons [N] in EPSG:4326.

    Small polygons are laid out around their own middle: their area in Lambert's azimuthal equal-area projection of the
    authalic sphere (Snyder 1987, equations 24-2 to 24-4), their edges by the mid-latitude formula.
    """
    if not len(shapes):
        return np.zeros(0), np.zeros(0)
    _, coordinates, (ring_starts, polygon_starts, starts) = shapely.to_ragged_array(shapes)
    west, south, east, north = shapely.bounds(shapes).T
    owner = np.repeat(np.arange(len(shapes)), np.diff(ring_starts[polygon_starts[starts]]))
    middle = np.radians(np.column_stack([west + east, south + north]) / 2)
    lon, lat = np.radians(coordinates[:, 0]), np.radians(coordinates[:, 1])
    areas = _ring_areas(lon - middle[owner, 0], lat, middle[owner, 1], ring_starts)
    areas[polygon_starts[:-1]] *= -1  # holes count against the exteriors
    area = -np.add.reduceat(areas, polygon_starts[starts[:-1]])
    perimeter: NDArray[np.float64] = np.zeros(len(shapes))
    outside = np.zeros(len(ring_starts) - 1, bool)
    outside[polygon_starts[:-1]] = True  # as pyproj measures: holes have no part in a perimeter
    edges = _edges(lon, lat, ring_starts) * np.repeat(outside, np.diff(ring_starts))[:-1]
    np.add.at(perimeter, owner[:-1], edges)
    large = ~(
        (east - west < SMALL_DEGREES * 4) & (north - south < SMALL_DEGREES) & (np.abs([south, north]).max(axis=0) < 85)
    )
    for index in np.flatnonzero(large):
        area[index] = geodesic_area(shapes[index])
        perimeter[index] = abs(WGS84.geometry_length(shapes[index]))
    return area, perimeter


def _ring_areas(
    east: NDArray[np.float64], lat: NDArray[np.float64], middle: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Areas of rings, never negative, from longitudes counted from their polygon's middle, and latitudes."""
    sine, centre = _authalic(np.sin(lat)) / _POLE, _authalic(np.sin(middle)) / _POLE
    cosine, across = np.sqrt(1 - sine**2), np.sqrt(1 - centre**2)
    turned = np.cos(east)
    scale = _AUTHALIC_RADIUS * np.sqrt(2 / (1 + centre * sine + across * cosine * turned))
    x, y = scale * cosine * np.sin(east), scale * (across * sine - centre * cosine * turned)
    twice = np.zeros(len(x))
    twice[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    twice[starts[1:] - 1] = 0  # there is no edge from one ring to the next
    return np.abs(np.add.reduceat(twice, starts[:-1])) / 2


def _edges(lon: NDArray[np.float64], lat: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Lengths [M - 1] of the edges between M vertices; 0 from one ring to the next."""
    middle = (lat[1:] + lat[:-1]) / 2
    bend = 1 - _E2 * np.sin(middle) ** 2
    north = np.diff(lat) * _A * (1 - _E2) / bend**1.5
    east = np.diff(lon) * _A / np.sqrt(bend) * np.cos(middle)
    lengths = np.hypot(north, east)
    lengths[starts[1:-1] - 1] = 0
    return lengths
