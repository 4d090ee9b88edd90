"""Between tiles, pixels and the globe.

Pixel coordinates are (x, y) with the origin at the tile's upper left corner, y down, so that (0.5, 0.5) is the centre
of the first pixel. Geographic coordinates are EPSG:4326 as (longitude, latitude).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import shapely
from affine import Affine
from django.contrib.gis.geos import GEOSGeometry
from django.contrib.gis.geos import MultiPolygon as GeosMultiPolygon
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from shapely import GeometryType
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.models import Tile, TileGrid
from thawloop.catalog.wrapping import wrap_longitudes

WGS84 = Geod(ellps="WGS84")
# Coordinates that differ by less are the same point: a millionth of a pixel.
_SNAP_PX = 1e-6
# Halving an edge so often leaves less of it than a double can tell apart.
_BISECTIONS = 53


def grid_step(grid: TileGrid) -> float:
    """Metres from one cell to the next."""
    return (grid.tile_size - grid.overlap) * grid.pixel_size


def tile_bounds(tile: Tile) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of the tile in its grid's CRS (metres)."""
    grid = tile.grid
    left, bottom = tile.col * grid_step(grid), tile.row * grid_step(grid)
    side = grid.tile_size * grid.pixel_size
    return left, bottom, left + side, bottom + side


def tile_transform(tile: Tile) -> Affine:
    """Pixel coordinates of the tile → its grid's CRS. North up: y grows downwards."""
    left, _, _, top = tile_bounds(tile)
    size = tile.grid.pixel_size
    return Affine(size, 0.0, left, 0.0, -size, top)


@lru_cache(maxsize=64)
def transformer(source: int | str, target: int | str) -> Transformer:
    """A cached pyproj transformer, always (x, y) = (easting or longitude, northing or latitude)."""
    return Transformer.from_crs(CRS.from_user_input(source), CRS.from_user_input(target), always_xy=True)


def to_shapely(geometry: GEOSGeometry | BaseGeometry) -> BaseGeometry:
    """Django's geometry as shapely's (2D)."""
    if isinstance(geometry, BaseGeometry):
        return shapely.force_2d(geometry)
    return shapely.force_2d(shapely.from_wkb(bytes(geometry.wkb)))


def to_geos(geometry: BaseGeometry, srid: int = 4326) -> GEOSGeometry:
    """Shapely's geometry as Django's."""
    return GEOSGeometry(memoryview(shapely.to_wkb(geometry)), srid=srid)


def multipolygon_to_geos(geometry: MultiPolygon) -> GeosMultiPolygon:
    """Shapely's multipolygon as Django's, in EPSG:4326."""
    return cast(GeosMultiPolygon, to_geos(geometry))


def as_multipolygon(geometry: BaseGeometry) -> MultiPolygon:
    """The polygons of a geometry, without lines and points that may have fallen out of an intersection."""
    parts = [p for p in shapely.get_parts(shapely.get_parts(geometry)) if isinstance(p, Polygon) and not p.is_empty]
    return MultiPolygon(parts)


def project(geometry: BaseGeometry, source: int | str, target: int | str) -> BaseGeometry:
    """Reproject every vertex. Edges stay straight between vertices: densify first where that matters."""
    move = transformer(source, target).transform
    return shapely.transform(geometry, lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])))


def _affine(transform: Affine) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    a, b, c, d, e, f = transform[:6]
    return lambda xy: np.column_stack((a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f))


def to_pixels(tile: Tile, geometry: GEOSGeometry | BaseGeometry) -> BaseGeometry:
    """A geographic geometry in the tile's pixel coordinates. Parts split at the antimeridian are joined again.

    Nothing is clipped: shapes may reach beyond [0, tile_size].
    """
    shape = to_shapely(geometry)
    pixels = shapely.transform(project(shape, 4326, tile.grid.srid), _affine(~tile_transform(tile)))
    if isinstance(shape, MultiPolygon) and _touches_antimeridian(shape):
        pixels = shapely.union_all(shapely.set_precision(list(pixels.geoms), _SNAP_PX))
    return pixels


def _touches_antimeridian(shape: BaseGeometry) -> bool:
    west, _, east, _ = shape.bounds
    return bool(west <= -180.0 + 1e-9 and east >= 180.0 - 1e-9)


def to_geographic(tile: Tile, rings: Sequence[NDArray[np.floating] | Sequence[Sequence[float]]]) -> BaseGeometry:
    """A polygon given in tile pixels as a geographic one.

    Args:
        tile: The tile whose pixels the rings are in.
        rings: The exterior ring, then the holes, each [N, 2] of (x, y), N >= 3, closed or not.

    Returns:
        A Polygon in EPSG:4326; a MultiPolygon where it crosses the antimeridian. Not validated or repaired.
    """
    return to_geographic_all(tile, [rings])[0]


def to_geographic_all(
    tile: Tile, outlines: Sequence[Sequence[NDArray[np.floating] | Sequence[Sequence[float]]]]
) -> list[BaseGeometry]:
    """:func:`to_geographic` for many polygons of a tile, all their vertices at once."""
    if not outlines:
        return []
    srid = tile.grid.srid
    vertices, rings, polygons = ragged(outlines)
    here = _affine(tile_transform(tile))(vertices)
    there = _move(here, srid)
    shapes: list[BaseGeometry] = list(shapely.from_ragged_array(GeometryType.POLYGON, there, (rings, polygons)))
    strange = np.abs(there[:, 0]) > 180.0
    strange[:-1] |= _jumps(there)
    strange[rings[1:] - 1] = False  # there is no edge from one ring to the next; its last vertex is its first
    ring_of = np.searchsorted(rings, np.flatnonzero(strange), side="right") - 1
    for index in np.unique(np.searchsorted(polygons, ring_of, side="right") - 1):
        spans = [slice(*rings[ring : ring + 2]) for ring in range(*polygons[index : index + 2])]
        exterior, *holes = [_with_crossings(here[span], there[span], srid) for span in spans]
        shapes[index] = wrap_longitudes(Polygon(exterior, holes))
    return shapes


def ragged(
    outlines: Sequence[Sequence[NDArray[np.floating] | Sequence[Sequence[float]]]],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Polygons, each a sequence of rings [N, 2], N >= 3, as `shapely.from_ragged_array` takes them: rings are closed.

    Returns:
        Vertices [V, 2]; where each ring's begin, and where they end [R + 1]; the same of polygons' rings [P + 1].
    """
    rings = [_closed(ring) for outline in outlines for ring in outline]
    vertices = np.concatenate(rings) if rings else np.zeros((0, 2))
    return vertices, np.cumsum([0, *map(len, rings)]), np.cumsum([0, *map(len, outlines)])


def _closed(ring: NDArray[np.floating] | Sequence[Sequence[float]]) -> NDArray[np.float64]:
    vertices = np.asarray(ring, dtype=float)
    if len(vertices) > 3 and (vertices[0] == vertices[-1]).all():
        return vertices
    return np.vstack([vertices, vertices[:1]])


def _move(points: NDArray[np.float64], srid: int) -> NDArray[np.float64]:
    """Points [N, 2] of a projected CRS as longitude and latitude."""
    return np.column_stack(transformer(srid, 4326).transform(points[:, 0], points[:, 1]))


def _jumps(there: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which edges of a ring (longitude, latitude) cross the antimeridian."""
    crossing: NDArray[np.bool_] = np.abs(np.diff(there[:, 0])) > 180.0
    return crossing


def _with_crossings(ring: NDArray[np.float64], there: NDArray[np.float64], srid: int) -> NDArray[np.float64]:
    """A closed ring [N, 2] of a projected CRS on the globe, with a vertex wherever an edge crosses the antimeridian.

    An edge that is straight in the projection is not in longitude and latitude: cut there, it would bend.
    """
    edges = np.flatnonzero(_jumps(there))
    if not len(edges):
        return there
    one, other = ring[edges], ring[edges + 1]
    west = there[edges, 0] < 0
    for _ in range(_BISECTIONS):
        middle = (one + other) / 2
        same = ((_move(middle, srid)[:, 0] < 0) == west)[:, None]
        one, other = np.where(same, middle, one), np.where(same, other, middle)
    return np.insert(there, edges + 1, _move(one, srid), axis=0)


def geodesic_area(geometry: GEOSGeometry | BaseGeometry) -> float:
    """Area in square metres on the WGS 84 ellipsoid of a polygonal geometry in EPSG:4326; holes are subtracted.

    Edges are geodesics (Karney 2013, as in GeographicLib), so projections such as EPSG:3857 cannot distort it.
    """
    shape = to_shapely(geometry)
    if shape.is_empty:
        return 0.0
    oriented = shapely.orient_polygons(shape)
    return abs(float(WGS84.geometry_area_perimeter(oriented)[0]))


def ground_pixel_size(tile: Tile) -> tuple[float, float]:
    """True width and height in metres of a pixel at the tile's centre: projections stretch (EPSG:3857 13 times)."""
    half = tile.grid.tile_size / 2
    transform = tile_transform(tile)
    corners = [transform @ (half, half), transform @ (half + 1, half), transform @ (half, half + 1)]
    lon, lat = transformer(tile.grid.srid, 4326).transform([x for x, _ in corners], [y for _, y in corners])
    _, _, metres = WGS84.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])
    return float(metres[0]), float(metres[1])
