"""A large campaign for `benchmarks/scale.py`: tiles, predictions, tasks, annotations and labels, written in bulk."""

import json
import math
from datetime import date
from typing import Any

import numpy as np
import shapely
from django.db import connection, transaction
from shapely.geometry import box

SRID, PIXEL, SIZE = 32608, 3.0, 256
STEP = PIXEL * SIZE
COL, ROW = 470, 9_800  # 360 km east, 7,526 km north: the Peel Plateau
PERIOD = {"period": "2021", "period_start": date(2021, 6, 1), "period_end": date(2021, 9, 30)}
SPLITS = {"train": 0.7, "val": 0.1, "test": 0.2}
OUTLINE_VERTICES = 20_000  # about 750 kB of GeoJSON, as a coast or a watershed has
BATCH_SIZE = 50
DIMENSIONS = 256  # of an embedding
CHUNK = 2_000

_POLYGON = {
    "id": "r1", "from_name": "polygons", "to_name": "picture_rgb", "type": "polygonlabels", "origin": "manual",
    "original_width": 512, "original_height": 512, "image_rotation": 0,
    "value": {"points": [[40 + 8 * math.cos(a / 4), 40 + 8 * math.sin(a / 4)] for a in range(25)],
              "closed": True, "polygonlabels": ["RTS"]},
}  # fmt: skip
_RING = [[round(100 + 20 * math.cos(a / 4), 2), round(100 + 20 * math.sin(a / 4), 2)] for a in range(25)]

# Half of the tiles become tasks, every fifth of which still waits; one label was drawn on each submitted tile.
_TASKS = """
    WITH chosen AS (
        SELECT t.id, row_number() OVER (ORDER BY md5(t.key)) - 1 AS place
        FROM catalog_tile t JOIN catalog_region r ON r.id = t.region_id
        WHERE r.name <> 'scale-test' ORDER BY place LIMIT %(tasks)s
    )
    SELECT gen_random_uuid() AS id, %(campaign)s AS campaign_id, c.id AS tile_id, b.id AS batch_id,
           CASE WHEN place %% 10 = 0 THEN 'random' ELSE 'acquired' END AS arm, place %% %(batch)s AS rank,
           p.uncertainty AS score, p.id AS prediction_id,
           CASE WHEN place < %(tasks)s * .8 THEN 'submitted' ELSE 'open' END AS state, place + 1 AS ls_task_id,
           made AS created, made AS updated
    FROM chosen c CROSS JOIN LATERAL (SELECT now() - (%(tasks)s - place) * interval '1 minute' AS made) AS moment
    JOIN labeling_acquisitionbatch b ON b.campaign_id = %(campaign)s AND b.number = c.place / %(batch)s + 1
    JOIN labeling_prediction p ON p.tile_id = c.id AND p.model_version_id = %(version)s
"""
_ANNOTATIONS = """
    SELECT id AS task_id, ls_task_id AS ls_annotation_id, updated AS ls_updated_at, 'submitted' AS kind,
           true AS makes_statement,
           'annotator-' || ls_task_id %% 7 AS annotator_name, %(result)s::jsonb AS result, 30 AS lead_time,
           prediction_id, random() AS correction_iou, updated AS created
    FROM labeling_annotationtask WHERE campaign_id = %(campaign)s AND state = 'submitted'
"""
_INSTANCES = """
    SELECT p.id AS prediction_id, 'p' || n AS region_id, %(landform)s AS landform_class_id, %(rings)s::jsonb AS rings,
           ST_Buffer(ST_Translate(ST_Centroid(t.geometry), .004 * (random() - .5), .002 * (random() - .5)), .0004, 6)
               AS geometry,
           random() AS score, '{.9,.9,.9}'::float[] AS stage_scores, .2 AS mask_entropy,
           '[[1,2,3,4],[1,2,3,4],[1,2,3,4]]'::jsonb AS stage_boxes
    FROM labeling_prediction p JOIN catalog_tile t ON t.id = p.tile_id, generate_series(1, 2) n
    WHERE p.model_version_id = %(version)s AND random() < .5
"""
_PLACES = {
    # where, whose label it is, what its revision came from
    "drawn": """SELECT gen_random_uuid() AS id, t.id AS tile, t.geometry, a.id AS annotation, NULL::bigint AS import,
                       'ls:' || a.ls_annotation_id || ':' || n AS origin, a.created
                FROM labeling_annotation a JOIN labeling_annotationtask k ON k.id = a.task_id
                JOIN catalog_tile t ON t.id = k.tile_id, generate_series(1, %(each)s) n""",
    "imported": """SELECT gen_random_uuid() AS id, NULL::bigint AS tile, t.geometry, NULL::bigint AS annotation,
                          %(import)s AS import, 'import:' || %(import)s || ':' || t.id || '-' || n AS origin,
                          now() - interval '1 day' AS created
                   FROM catalog_tile t JOIN catalog_region r ON r.id = t.region_id AND r.name = 'scale-test',
                        generate_series(1, %(each)s) n""",
}
_LABELS = "SELECT id, %(campaign)s AS campaign_id, tile AS tile_id, origin, created FROM place"
_REVISIONS = """
    SELECT id AS label_id, 1 AS number, %(landform)s AS landform_class_id,
           ST_Multi(ST_Buffer(ST_Translate(ST_Centroid(geometry), .006 * (random() - .5), .004 * (random() - .5)),
                              .0002 + .0004 * random(), 8)) AS geometry,
           annotation AS annotation_id, import AS label_import_id, 'somebody' AS author_name,
           'filled for a benchmark' AS reason, created
    FROM place
"""
_CURRENT = "UPDATE labeling_label l SET current_id = r.id FROM labeling_labelrevision r WHERE r.label_id = l.id"


def fill(tiles: int, *, vertices: int = OUTLINE_VERTICES) -> Any:
    """A campaign of about so many tiles: half of them tasks, twice as many labels, a prediction for each, one release.

    Labels are drawn in the train and val regions and imported, with coverage, in the test region. Regions have outlines
    of so many `vertices`.
    """
    from labeling.models import LabelImport
    from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion, LandformClass
    from thawloop.catalog import services as catalog
    from thawloop.registry.models import ModelAlias, ModelVersion
    from thawloop.training.models import RetrainPolicy

    side = max(10, round(math.sqrt(tiles)))
    grid = catalog.define_grid("scale", SRID, PIXEL, SIZE)
    campaign = Campaign.objects.create(name="scale", title="Scale", grid=grid, **PERIOD)
    landform = LandformClass.objects.get_or_create(name="RTS")[0]
    campaign.classes.add(landform)
    CampaignModality.objects.create(
        campaign=campaign, modality=catalog.ensure_builtin("rgb"), position=0, is_anchor=True
    )
    first = 0
    for split, share in SPLITS.items():
        last = side if split == "test" else first + round(side * share)
        region = catalog.define_region(f"scale-{split}", _outline(first, last, side, vertices))
        CampaignRegion.objects.create(campaign=campaign, region=region, split=split)
        catalog.create_tiles(grid, region, **PERIOD)
        first = last
    version = ModelVersion.objects.create(campaign=campaign, number=1, name="scale-v1", path="x", checksum="0" * 64,
                                          card={"losses": [0.5] * 2_000})  # fmt: skip
    ModelAlias.objects.create(campaign=campaign, alias="champion", model_version=version)
    RetrainPolicy.objects.create(campaign=campaign, min_new_tiles=10**9)
    test = campaign.regions.get(name="scale-test")
    covering = LabelImport.objects.create(
        campaign=campaign, file_name="scale.gpkg", checksum="0" * 64, coverage=test.geometry
    )
    predict(campaign, version)
    _write(campaign, version, landform, covering, side**2)
    return campaign


def predict(campaign: Any, version: Any, tiles: Any = None) -> None:
    """Predictions of a version about some tiles (all of them), and its instances."""
    from labeling.models import Prediction
    from thawloop.campaigns.selectors import campaign_tiles

    random = np.random.default_rng(version.number)
    keys = list((campaign_tiles(campaign) if tiles is None else tiles).order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        vectors = random.normal(size=(len(part), DIMENSIONS)).astype("<f4")
        Prediction.objects.bulk_create(
            Prediction(tile_id=key, model_version=version, embedding=vector.tobytes(), uncertainty=random.random())
            for key, vector in zip(part, vectors, strict=True)
        )


def _outline(first: int, last: int, side: int, vertices: int) -> Any:
    """Columns of cells, with an edge that trembles by some metres."""
    from thawloop.catalog.geometry import project

    shape = box((COL + first) * STEP, ROW * STEP, (COL + last) * STEP, (ROW + side) * STEP)
    edge = np.array(shape.segmentize(shape.length / vertices).exterior.coords)
    edge += np.random.default_rng(0).uniform(-1, 1, edge.shape) * shape.length / vertices / 4
    edge[-1] = edge[0]
    return project(shapely.Polygon(edge).buffer(0), SRID, 4326)


@transaction.atomic
def _write(campaign: Any, version: Any, landform: Any, covering: Any, tiles: int) -> None:
    from labeling.models import (
        AcquisitionBatch,
        Annotation,
        AnnotationTask,
        Label,
        LabelRevision,
        PredictedInstance,
    )

    tasks = tiles // 2
    AcquisitionBatch.objects.bulk_create(
        AcquisitionBatch(campaign=campaign, number=number + 1, strategy="hybrid", seed=0, candidates=tiles,
                         model_version=version)
        for number in range(math.ceil(tasks / BATCH_SIZE))
    )  # fmt: skip
    values = {"campaign": campaign.pk, "version": version.pk, "tasks": tasks, "batch": BATCH_SIZE,
              "result": json.dumps([_POLYGON]), "landform": landform.pk, "rings": json.dumps([_RING]),
              "import": covering.pk}  # fmt: skip
    with connection.cursor() as cursor:
        _insert(cursor, AnnotationTask, _TASKS, values)
        _insert(cursor, Annotation, _ANNOTATIONS, values)
        _insert(cursor, PredictedInstance, _INSTANCES, values)
        for what, each in (("drawn", 2), ("imported", 6)):
            cursor.execute(f"CREATE TEMPORARY TABLE place AS {_PLACES[what]}", values | {"each": each})
            _insert(cursor, Label, _LABELS, values)
            _insert(cursor, LabelRevision, _REVISIONS, values)
            cursor.execute("DROP TABLE place")
        cursor.execute(_CURRENT)


def _insert(cursor: Any, model: Any, select: str, values: dict[str, Any]) -> None:
    """Insert what a query says of a model's columns; the others take the model's defaults."""
    cursor.execute(f"SELECT * FROM ({select}) AS given LIMIT 0", values)
    given = [column.name for column in cursor.description]
    others = [
        field for field in model._meta.concrete_fields
        if field.column not in given and not field.null and not field.primary_key
    ]  # fmt: skip
    defaults = {f"default_{field.column}": field.get_db_prep_save(field.get_default(), connection) for field in others}
    casts = [f"%(default_{field.column})s::{field.db_type(connection)}" for field in others]
    cursor.execute(
        f"INSERT INTO {model._meta.db_table} ({', '.join(given + [field.column for field in others])}) "
        f"SELECT {', '.join(['given.*', *casts])} FROM ({select}) AS given",
        values | defaults,
    )


def analyze() -> None:
    """What autovacuum does by itself after a while."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
