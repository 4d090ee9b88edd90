"""Making the tiles of a grid over a region, in one statement inside PostGIS."""

from datetime import date
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction

from thawloop.catalog.errors import TilesRefused
from thawloop.catalog.geometry import grid_step, transformer
from thawloop.catalog.models import NAME, Modality, Region, Tile, TileGrid
from thawloop.catalog.selectors import measured_inputs
from thawloop.core.planner import renew_statistics
from thawloop.core.services import audit

MOST_TILES = 5_000_000

# The region on the grid's plane. Its edges are straight in longitude and latitude, so they are densified before they
# are moved; parts split at the antimeridian are joined again; ST_Subdivide keeps each point-in-polygon test small.
_REGION = """
    region AS (
        SELECT ST_UnaryUnion(ST_Transform(ST_Segmentize(geometry, %(densify)s), %(srid)s)) AS shape
        FROM catalog_region WHERE id = %(region)s
    )
"""

_CELLS = """
    part AS MATERIALIZED (SELECT ST_Subdivide(shape, 128) AS shape FROM region),
    cell AS MATERIALIZED (
        SELECT DISTINCT col, row
        FROM part,
            generate_series(
                ceil((ST_XMin(shape) - %(half)s) / %(step)s)::int, floor((ST_XMax(shape) - %(half)s) / %(step)s)::int
            ) AS col,
            generate_series(
                ceil((ST_YMin(shape) - %(half)s) / %(step)s)::int, floor((ST_YMax(shape) - %(half)s) / %(step)s)::int
            ) AS row
        WHERE ST_Intersects(
            shape, ST_SetSRID(ST_MakePoint(col * %(step)s + %(half)s, row * %(step)s + %(half)s), %(srid)s)
        )
    )
"""

# MATERIALIZED, because otherwise PostgreSQL repeats a transformation wherever its result is used.
# A footprint that jumps from 179 to -179 degrees crosses the antimeridian: it is shifted to run on to 181, cut at 180
# and its eastern piece shifted back. `inner` is the cell less half a pixel all round: what merely touches a scene's
# edge holds none of its pixels.
_FOOTPRINTS = """
    plane AS MATERIALIZED (
        SELECT col, row,
            ST_Transform(ST_Segmentize(ST_MakeEnvelope(
                col * %(step)s, row * %(step)s, col * %(step)s + %(side)s, row * %(step)s + %(side)s, %(srid)s
            ), %(side)s / 4.0), 4326) AS shape,
            ST_Transform(ST_Segmentize(ST_MakeEnvelope(
                col * %(step)s + %(rim)s, row * %(step)s + %(rim)s,
                col * %(step)s + %(side)s - %(rim)s, row * %(step)s + %(side)s - %(rim)s, %(srid)s
            ), %(side)s / 4.0), 4326) AS inner_shape
        FROM cell
        WHERE NOT (%(polar)s AND col * %(step)s <= %(pole_x)s AND col * %(step)s + %(side)s >= %(pole_x)s
                   AND row * %(step)s <= %(pole_y)s AND row * %(step)s + %(side)s >= %(pole_y)s)
    ),
    footprint AS MATERIALIZED (
        SELECT col, row,
            CASE WHEN ST_XMax(shape) - ST_XMin(shape) <= 180 THEN shape
                 ELSE ST_CollectionExtract(ST_WrapX(ST_ShiftLongitude(shape), 180, -360), 3) END AS shape,
            CASE WHEN ST_XMax(inner_shape) - ST_XMin(inner_shape) <= 180 THEN inner_shape
                 ELSE ST_CollectionExtract(ST_WrapX(ST_ShiftLongitude(inner_shape), 180, -360), 3) END AS inner_shape
        FROM plane
    )
"""

_COVERED = """EXISTS (
    SELECT 1 FROM catalog_scene AS scene
    WHERE scene.modality_id = %(modality_{n})s
        AND (%(static_{n})s OR scene.acquired BETWEEN %(period_start)s AND %(period_end)s)
        AND ST_Intersects(scene.footprint, inner_shape)
)"""

_INSERT = """
    INSERT INTO catalog_tile (grid_id, col, row, period, period_start, period_end, region_id, key, geometry, created)
    SELECT %(grid)s, col, row, %(period)s, %(period_start)s, %(period_end)s, %(region)s,
        %(prefix)s || '_c' || col || '_r' || row, shape, now()
    FROM footprint WHERE {covered}
    ORDER BY row, col
    ON CONFLICT DO NOTHING
"""

_COUNT = f"WITH {_REGION} SELECT ST_Area(shape) / (%(step)s * %(step)s) FROM region"  # noqa: S608 - constants only

_ELSEWHERE = """
    SELECT count(*), min(other.name) FROM cell
    JOIN catalog_tile AS tile ON tile.grid_id = %(grid)s AND tile.period = %(period)s
        AND tile.col = cell.col AND tile.row = cell.row
    JOIN catalog_region AS other ON other.id = tile.region_id
    WHERE tile.region_id <> %(region)s
"""


@transaction.atomic
def create_tiles(
    grid: TileGrid,
    region: Region,
    *,
    period: str,
    period_start: date,
    period_end: date,
    min_coverage_by: Modality | None = None,
) -> int:
    """Make the grid's tiles whose centre lies in a region, for one period. Running it again adds only what is new.

    Args:
        grid: The tile grid.
        region: The region that the tiles will belong to.
        period: Label of the period, e.g. `2021`; part of each tile's key.
        period_start: First day of the period.
        period_end: Last day of the period.
        min_coverage_by: Only make tiles that meet a scene of this modality acquired in the period (at any time, if it
            is static). For a derived modality: of everything it is computed from.

    Returns:
        The number of tiles made; those that were there already do not count.

    Raises:
        TilesRefused: The period is malformed or differs from the one under that label, there would be more than
            5 million tiles, or cells of the region already are tiles of another region.
    """
    _check_period(grid, period, period_start, period_end)
    parameters = _parameters(grid, region, period, period_start, period_end)
    sources = measured_inputs(min_coverage_by) if min_coverage_by is not None else []
    for n, source in enumerate(sources):
        parameters |= {f"modality_{n}": source.pk, f"static_{n}": source.is_static}
    covered = " AND ".join(_COVERED.format(n=n) for n in range(len(sources))) or "TRUE"
    with connection.cursor() as cursor:
        _check_count(cursor, grid, region, parameters)
        _check_elsewhere(cursor, grid, region, parameters)
        cursor.execute(f"WITH {_REGION}, {_CELLS}, {_FOOTPRINTS} {_INSERT.format(covered=covered)}", parameters)
        made = int(cursor.rowcount)
    if made:
        after = {"grid": grid.name, "period": period, "tiles": made}
        audit("catalog.create_tiles", region, after=after)
        renew_statistics(made, Tile)
    return made


def _parameters(grid: TileGrid, region: Region, period: str, start: date, end: date) -> dict[str, Any]:
    side = grid.tile_size * grid.pixel_size
    west, south, east, north = region.geometry.extent
    pole_x, pole_y = _pole(grid.srid)
    return {
        "grid": grid.pk,
        "region": region.pk,
        "srid": grid.srid,
        "step": grid_step(grid),
        "side": side,
        "half": side / 2,
        "rim": grid.pixel_size / 2,
        # 0.02 degrees of latitude keep the edge within a few decimetres; a continent gets 2,000 points per edge.
        "densify": max(0.02, max(east - west, north - south) / 2000),
        "polar": pole_x is not None,
        "pole_x": pole_x or 0.0,
        "pole_y": pole_y or 0.0,
        "prefix": f"{grid.name}_{period}",
        "period": period,
        "period_start": start,
        "period_end": end,
    }


def _pole(srid: int) -> tuple[float | None, float | None]:
    """Where the nearer pole lies on the grid's plane, if it does: a cell around it has no outline in degrees."""
    crs = transformer(4326, srid).target_crs
    use = crs.area_of_use if crs is not None else None
    if use is None or max(abs(use.south), abs(use.north)) < 89.9:
        return None, None
    x, y = transformer(4326, srid).transform(0.0, 90.0 if use.north > 89.9 else -90.0)
    return (x, y) if abs(x) < 1e8 and abs(y) < 1e8 else (None, None)


def _check_period(grid: TileGrid, period: str, start: date, end: date) -> None:
    try:
        NAME(period)
    except ValidationError as error:
        raise TilesRefused(f"The period label `{period}` is not valid. {error.messages[0]}") from error
    if len(period) > 20:
        raise TilesRefused(f"The period label `{period}` is longer than 20 characters.")
    if start > end:
        raise TilesRefused(f"The period `{period}` ends ({end}) before it begins ({start}).")
    other = Tile.objects.filter(grid=grid, period=period).values_list("period_start", "period_end").first()
    if other is not None and other != (start, end):
        raise TilesRefused(
            f"Grid `{grid.name}` already has tiles of a period `{period}` from {other[0]} to {other[1]}, "
            f"not {start} to {end}: use those dates, or another label."
        )


def _check_count(cursor: Any, grid: TileGrid, region: Region, parameters: dict[str, Any]) -> None:
    cursor.execute(_COUNT, parameters)
    (count,) = cursor.fetchone()
    if count is not None and count > MOST_TILES:
        raise TilesRefused(
            f"Region `{region.name}` holds about {round(count):,} cells of grid `{grid.name}`, more than the "
            f"{MOST_TILES:,} that are made in one go: use smaller regions or larger tiles."
        )


def _check_elsewhere(cursor: Any, grid: TileGrid, region: Region, parameters: dict[str, Any]) -> None:
    cursor.execute(f"WITH {_REGION}, {_CELLS} {_ELSEWHERE}", parameters)
    count, other = cursor.fetchone()
    if count:
        raise TilesRefused(
            f"{count:,} cells of region `{region.name}` already are tiles of region `{other}` (grid `{grid.name}`, "
            f"period `{parameters['period']}`): regions of one grid and period must not share cells."
        )
