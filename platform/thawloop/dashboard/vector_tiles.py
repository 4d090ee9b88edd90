"""The map's vector tiles, in the Arctic's own projection (EPSG:3413) so that shapes and areas look right.

The tiling scheme is ours: zoom 0 is one square of +-12,582,912 m around the pole, halved at every zoom.
PostGIS cuts and encodes (ST_AsMVT, Mapbox Vector Tile 2.1).
"""

from django.db import connection

from labeling.models import Campaign

SRID = 3413
HALF_EXTENT = 12_582_912.0
MAX_ZOOM = 18

LAYERS = {
    "regions": """
        SELECT r.id, r.name, cr.split, ST_AsMVTGeom(ST_Transform(r.geometry, 3413), b.box::box2d) AS geom
        FROM bounds b, catalog_region r JOIN labeling_campaignregion cr ON cr.region_id = r.id
        WHERE cr.campaign_id = %(campaign)s AND ST_Transform(r.geometry, 3413) && b.box""",
    "tiles": """
        SELECT t.id, t.key, t.col, t.row, cr.split, k.state, k.arm, k.batch_id AS batch,
               round(p.uncertainty::numeric, 3)::float AS uncertainty,
               ST_AsMVTGeom(ST_Transform(t.geometry, 3413), b.box::box2d) AS geom
        FROM bounds b, catalog_tile t
        JOIN labeling_campaignregion cr ON cr.region_id = t.region_id AND cr.campaign_id = %(campaign)s
        LEFT JOIN labeling_annotationtask k ON k.tile_id = t.id AND k.campaign_id = %(campaign)s
        LEFT JOIN labeling_prediction p ON p.tile_id = t.id AND p.model_version_id = %(champion)s
        WHERE t.grid_id = %(grid)s AND t.period = %(period)s AND ST_Transform(t.geometry, 3413) && b.box""",
    "labels": """
        SELECT lr.id, c.name AS class, c.color, lr.author_name AS author,
               ST_AsMVTGeom(ST_Transform(lr.geometry, 3413), b.box::box2d) AS geom
        FROM bounds b, labeling_labelrevision lr
        JOIN labeling_label l ON l.current_id = lr.id
        JOIN labeling_landformclass c ON c.id = lr.landform_class_id
        WHERE l.campaign_id = %(campaign)s AND lr.state = 'present' AND ST_Transform(lr.geometry, 3413) && b.box""",
    "instances": """
        SELECT i.id, round(i.score::numeric, 3)::float AS score,
               ST_AsMVTGeom(ST_Transform(i.geometry, 3413), b.box::box2d) AS geom
        FROM bounds b, labeling_predictedinstance i
        JOIN labeling_prediction p ON p.id = i.prediction_id
        WHERE p.model_version_id = %(champion)s AND i.score >= %(threshold)s
          AND ST_Transform(i.geometry, 3413) && b.box""",
}


def square(zoom: int, x: int, y: int) -> tuple[float, float, float, float]:
    """Return (xmin, ymin, xmax, ymax) in EPSG:3413 metres; `y` counts from the top. Raises ValueError outside."""
    if not (0 <= zoom <= MAX_ZOOM and 0 <= x < 2**zoom and 0 <= y < 2**zoom):
        raise ValueError(f"There is no map tile {zoom}/{x}/{y}.")
    side = 2 * HALF_EXTENT / 2**zoom
    left, top = -HALF_EXTENT + x * side, HALF_EXTENT - y * side
    return left, top - side, left + side, top


def vector_tile(campaign: Campaign, champion_id: int | None, zoom: int, x: int, y: int) -> bytes:
    """Encode one map tile with the layers regions, tiles, labels and instances (the champion's)."""
    xmin, ymin, xmax, ymax = square(zoom, x, y)
    parameters = {
        "campaign": campaign.pk,
        "champion": champion_id,
        "grid": campaign.grid_id,
        "period": campaign.period,
        "threshold": campaign.score_threshold,
        "xmin": xmin,
        "ymin": ymin,
        "xmax": xmax,
        "ymax": ymax,
    }
    encoded = b""
    with connection.cursor() as cursor:
        for layer, query in LAYERS.items():
            cursor.execute(
                f"""
                WITH bounds AS (SELECT ST_MakeEnvelope(%(xmin)s, %(ymin)s, %(xmax)s, %(ymax)s, 3413) AS box),
                     features AS ({query})
                SELECT ST_AsMVT(features, '{layer}', 4096, 'geom', 'id') FROM features WHERE geom IS NOT NULL
                """,  # noqa: S608 - both pieces are constants of this module
                parameters,
            )
            encoded += bytes(cursor.fetchone()[0])
    return encoded
