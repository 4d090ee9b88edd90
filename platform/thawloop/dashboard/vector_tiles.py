"""The map's vector tiles, in the Arctic's own projection (EPSG:3413) so that shapes and areas look right.

The tiling scheme is ours: zoom 0 is one square of +-12,582,912 m around the pole, halved at every zoom.
PostGIS cuts and encodes (ST_AsMVT, Mapbox Vector Tile 2.1).

A map tile holds what can be seen at its zoom, so that its size has a bound: grid cells narrower than LEAST_CELL_PX are
drawn together in blocks, with counts; labels and instances smaller than LEAST_SHAPE_PX become points, one with a count
for all within LEAST_CELL_PX of each other. At most MOST_SHAPES shapes are drawn, the largest.
"""

import math

import numpy as np
from django.db import connection

from thawloop.campaigns.models import Campaign
from thawloop.catalog.geometry import grid_step, transformer

SRID = 3413
HALF_EXTENT = 12_582_912.0
MAX_ZOOM = 18
TILE_PX = 512
LEAST_CELL_PX = 8.0
LEAST_SHAPE_PX = 4.0
MOST_SHAPES = 2_000
_DEGREE_M = 111_320.0  # of latitude
_LARGEST_INVERTIBLE_M = 3_000_000.0
_EVERYWHERE = (-(2**31), 2**31 - 1)

_REGIONS = """
    SELECT r.id, r.name, cr.split,
           ST_AsMVTGeom(ST_Simplify(ST_Transform(r.geometry, 3413), %(pixel)s / 2, true), b.box::box2d) AS geom
    FROM bounds b, catalog_region r JOIN campaigns_campaignregion cr ON cr.region_id = r.id
    WHERE cr.campaign_id = %(campaign)s AND ST_Transform(r.geometry, 3413) && b.box
"""

_TILES = """
    SELECT t.id, t.col, t.row, cr.split, k.state, k.arm, k.batch_id AS batch,
           round(p.uncertainty::numeric, 2)::float AS uncertainty,
           ST_AsMVTGeom(ST_Transform(t.geometry, 3413), b.box::box2d) AS geom
    FROM bounds b, catalog_tile t
    JOIN campaigns_campaignregion cr ON cr.region_id = t.region_id AND cr.campaign_id = %(campaign)s
    LEFT JOIN labeling_annotationtask k ON k.tile_id = t.id AND k.campaign_id = %(campaign)s
    LEFT JOIN labeling_prediction p ON p.tile_id = t.id AND p.model_version_id = %(champion)s
    WHERE t.grid_id = %(grid)s AND t.period = %(period)s AND ST_Transform(t.geometry, 3413) && b.box
"""

# Blocks of `across` x `across` grid cells, outlined on the grid's plane around the cells that are there.
_BLOCK = """
    tile AS MATERIALIZED (
        SELECT t.id, t.col, t.row FROM catalog_tile t
        JOIN campaigns_campaignregion cr ON cr.region_id = t.region_id AND cr.campaign_id = %(campaign)s
        WHERE t.grid_id = %(grid)s AND t.period = %(period)s
          AND t.col BETWEEN %(west)s AND %(east)s AND t.row BETWEEN %(south)s AND %(north)s
    ), found AS MATERIALIZED (
        SELECT prediction_id, count(*) AS instances FROM labeling_predictedinstance
        WHERE score >= %(threshold)s GROUP BY prediction_id
    ), counted AS MATERIALIZED (
        SELECT min(col) AS west, max(col) AS east, min(row) AS south, max(row) AS north, count(*) AS tiles,
               count(*) FILTER (WHERE k.state = 'submitted') AS submitted,
               count(*) FILTER (WHERE k.state IN ('pending', 'open', 'returned')) AS waiting,
               round(avg(p.uncertainty)::numeric, 2)::float AS uncertainty, sum(f.instances)::int AS instances
        FROM tile t
        LEFT JOIN labeling_annotationtask k ON k.tile_id = t.id AND k.campaign_id = %(campaign)s
        LEFT JOIN labeling_prediction p ON p.tile_id = t.id AND p.model_version_id = %(champion)s
        LEFT JOIN found f ON f.prediction_id = p.id
        GROUP BY floor(col / %(across)s::float), floor(row / %(across)s::float)
    ), block AS MATERIALIZED (
        SELECT *, ST_Transform(ST_MakeEnvelope(west * %(step)s, south * %(step)s, east * %(step)s + %(size)s,
                                               north * %(step)s + %(size)s, %(srid)s), 3413) AS shape
        FROM counted
    )
"""
_BLOCKS = """
    SELECT tiles, submitted, waiting, uncertainty, ST_AsMVTGeom(shape, b.box::box2d) AS geom
    FROM bounds b, block WHERE shape && b.box
"""
_BLOCK_INSTANCES = """
    SELECT instances AS count, ST_AsMVTGeom(ST_Centroid(shape), b.box::box2d, 4096, 0) AS geom
    FROM bounds b, block WHERE instances > 0 AND shape && b.box
"""

# Sizes and places come from bounding boxes: cheap, where transforming every outline would not be. One pass over what is
# near keeps numbers only; the few outlines that are drawn are fetched afterwards.
_SHAPES = """
    WITH placed AS (
        SELECT id, color, (ST_XMin(box) + ST_XMax(box)) / 2 AS lon, (ST_YMin(box) + ST_YMax(box)) / 2 AS lat,
               greatest((ST_XMax(box) - ST_XMin(box)) * cos(radians(ST_YMin(box))),
                        ST_YMax(box) - ST_YMin(box)) >= %(least)s AS is_large
        FROM ({near} OFFSET 0) AS near  -- an optimisation fence: else the box is computed for each of its uses
        OFFSET 0
    ), heap AS MATERIALIZED (
        SELECT color, array_agg(id) FILTER (WHERE is_large) AS large, count(*) FILTER (WHERE NOT is_large) AS count,
               avg(lon) FILTER (WHERE NOT is_large) AS lon, avg(lat) FILTER (WHERE NOT is_large) AS lat
        FROM placed
        GROUP BY color, floor(lat / %(apart)s),
                 floor(lon * cos(radians(floor(lat / %(apart)s) * %(apart)s)) / %(apart)s)
    ), large AS MATERIALIZED (
        SELECT s.id, heap.color, {score} AS score, ST_Transform(s.geometry, 3413) AS shape
        FROM heap, unnest(heap.large) AS known (id) JOIN {table} s ON s.id = known.id
        ORDER BY ST_Area(s.geometry) DESC LIMIT %(most)s
    ), point AS MATERIALIZED (
        SELECT count, color, ST_Transform(ST_SetSRID(ST_MakePoint(lon, lat), 4326), 3413) AS place
        FROM heap WHERE count > 0
    )
    SELECT id, NULL::bigint AS count, color, score,
           ST_AsMVTGeom(ST_Simplify(shape, %(pixel)s / 4, true), b.box::box2d) AS geom
    FROM bounds b, large WHERE shape && b.box
    UNION ALL
    SELECT NULL, count, color, NULL, ST_AsMVTGeom(place, b.box::box2d, 4096, 0)
    FROM bounds b, point WHERE place && b.box
"""
_LABELS = """
    SELECT s.id, c.color, s.geometry::box2d::box3d AS box
    FROM bounds b, labeling_labelrevision s
    JOIN labeling_label l ON l.current_id = s.id
    JOIN campaigns_landformclass c ON c.id = s.landform_class_id
    WHERE l.campaign_id = %(campaign)s AND s.state = 'present'
"""
_INSTANCES = """
    SELECT s.id, NULL::text AS color, s.geometry::box2d::box3d AS box
    FROM bounds b, labeling_predictedinstance s
    JOIN labeling_prediction p ON p.id = s.prediction_id
    WHERE p.model_version_id = %(champion)s AND s.score >= %(threshold)s
"""
_HERE = " AND ST_Transform(s.geometry, 3413) && b.box"


def square(zoom: int, x: int, y: int) -> tuple[float, float, float, float]:
    """Return (xmin, ymin, xmax, ymax) in EPSG:3413 metres; `y` counts from the top. Raises ValueError outside."""
    if not (0 <= zoom <= MAX_ZOOM and 0 <= x < 2**zoom and 0 <= y < 2**zoom):
        raise ValueError(f"There is no map tile {zoom}/{x}/{y}.")
    side = 2 * HALF_EXTENT / 2**zoom
    left, top = -HALF_EXTENT + x * side, HALF_EXTENT - y * side
    return left, top - side, left + side, top


def vector_tile(campaign: Campaign, champion_id: int | None, zoom: int, x: int, y: int) -> bytes:
    """Encode one map tile with the layers regions, tiles or blocks of tiles, labels and instances (the champion's)."""
    box = square(zoom, x, y)
    grid = campaign.grid
    pixel = (box[2] - box[0]) / TILE_PX
    cell = grid_step(grid) / pixel
    across = 1 if cell >= LEAST_CELL_PX else 2 ** math.ceil(math.log2(LEAST_CELL_PX / cell))
    cells = _cells(box, grid.srid, grid_step(grid)) if across > 1 else {}
    parameters = {
        **dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        **cells,
        "campaign": campaign.pk,
        "champion": champion_id,
        "grid": grid.pk,
        "period": campaign.period,
        "threshold": campaign.score_threshold,
        "srid": grid.srid,
        "step": grid_step(grid),
        "size": grid.tile_size * grid.pixel_size,
        "across": across,
        "pixel": pixel,
        "least": LEAST_SHAPE_PX * pixel / _DEGREE_M,
        "apart": LEAST_CELL_PX * pixel / _DEGREE_M,
        "most": MOST_SHAPES,
    }
    with connection.cursor() as cursor:
        encoded = []
        for statement in _BLOCKWISE if across > 1 else _ONE_BY_ONE:
            cursor.execute(statement, parameters)
            encoded.append(bytes(cursor.fetchone()[0]))
    return b"".join(encoded)


def _cells(box: tuple[float, float, float, float], srid: int, step: float) -> dict[str, int]:
    """Which columns and rows of a grid may lie in a square; all, where it is too large for the grid's plane."""
    left, bottom, right, top = box
    names = ("west", "east", "south", "north")
    if right - left > _LARGEST_INVERTIBLE_M:
        return dict(zip(names, _EVERYWHERE * 2, strict=True))
    along = np.linspace(0, 1, 17)
    xs = np.concatenate(
        [left + along * (right - left), np.full(17, right), right - along * (right - left), np.full(17, left)]
    )
    ys = np.concatenate(
        [np.full(17, bottom), bottom + along * (top - bottom), np.full(17, top), top - along * (top - bottom)]
    )
    columns, rows = (np.asarray(values) / step for values in transformer(SRID, srid).transform(xs, ys))
    if not (np.isfinite(columns).all() and np.isfinite(rows).all()):
        return dict(zip(names, _EVERYWHERE * 2, strict=True))
    # An edge bulges between two points, and a cell reaches into the square from outside.
    wide, high = np.ptp(columns) * 0.02 + 1, np.ptp(rows) * 0.02 + 1
    ends = (columns.min() - wide, columns.max() + wide, rows.min() - high, rows.max() + high)
    return {name: int(np.clip(math.floor(end), *_EVERYWHERE)) for name, end in zip(names, ends, strict=True)}


def _encoded(layer: str, query: str, *, numbered: bool = True) -> str:
    key = ", 'id'" if numbered else ""
    return f"(SELECT ST_AsMVT(f, '{layer}', 4096, 'geom'{key}) FROM ({query}) AS f WHERE geom IS NOT NULL)"  # noqa: S608


def _statement(*layers: str, using: str = "") -> str:
    bounds = "bounds AS (SELECT ST_MakeEnvelope(%(xmin)s, %(ymin)s, %(xmax)s, %(ymax)s, 3413) AS box)"
    return f"WITH {bounds}{', ' if using else ''}{using} SELECT {' || '.join(layers)}"


def _labels(near: str) -> str:
    query = _SHAPES.format(near=near, table="labeling_labelrevision", score="NULL::float")
    return _statement(_encoded("labels", query))


def _instances(near: str) -> str:
    query = _SHAPES.format(near=near, table="labeling_predictedinstance", score="round(s.score::numeric, 2)::float")
    return _statement(_encoded("instances", query))


# All of this is put together from constants of this module.
_ONE_BY_ONE = [
    _statement(_encoded("regions", _REGIONS)),
    _statement(_encoded("tiles", _TILES)),
    _labels(_LABELS + _HERE),
    _instances(_INSTANCES + _HERE),
]
_BLOCKWISE = [
    _statement(_encoded("regions", _REGIONS)),
    _statement(
        _encoded("blocks", _BLOCKS, numbered=False),
        _encoded("instances", _BLOCK_INSTANCES, numbered=False),
        using=_BLOCK,
    ),
    _labels(_LABELS),  # far away there is no use in asking the index which labels lie here: most do
]
