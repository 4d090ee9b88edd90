"""Builders: a campaign of sixteen tiles on the Peel Plateau, and what models say about them."""

from datetime import date
from typing import Any

from django.contrib.gis.geos import MultiPolygon, Polygon

from contracts.network import NETWORK_VERSION
from labeling.labelstudio.submissions import record_payload
from labeling.models import (
    AcquisitionBatch,
    Annotation,
    AnnotationTask,
    Label,
    LabelImport,
    LabelRevision,
    Preannotation,
    PredictedInstance,
    Prediction,
)
from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion, LandformClass
from thawloop.catalog.geometry import to_geographic, to_geos
from thawloop.catalog.models import Modality, Region, Tile, TileGrid
from thawloop.registry.models import ModelAlias, ModelVersion

TILE_SIZE = 128
PERIOD = {"period": "2021", "period_start": date(2021, 6, 1), "period_end": date(2021, 9, 30)}
SQUARE = [[10.0, 10.0], [40.0, 10.0], [40.0, 40.0], [10.0, 40.0]]
RING = [[60.0, 60.0], [110.0, 60.0], [110.0, 110.0], [60.0, 110.0]]
HOLE = [[75.0, 75.0], [95.0, 75.0], [95.0, 95.0], [75.0, 95.0]]


def build_landform() -> LandformClass:
    """The class RTS."""
    return LandformClass.objects.get_or_create(name="RTS", defaults={"title": "Retrogressive thaw slump"})[0]


def build_campaign(name: str = "peel") -> Campaign:
    """A campaign with RGB (the anchor) and NDVI pictures and one training region of 4 x 4 tiles."""
    grid, _ = TileGrid.objects.get_or_create(name="peel", srid=3413, pixel_size=3.0, tile_size=TILE_SIZE)
    everywhere = MultiPolygon(Polygon.from_bbox((-140, 60, -120, 75)))
    region, created = Region.objects.get_or_create(name="peel-train", defaults={"geometry": everywhere})
    campaign = Campaign.objects.create(name=name, title="Peel Plateau", grid=grid, **PERIOD)
    campaign.classes.add(build_landform())
    CampaignRegion.objects.create(campaign=campaign, region=region, split="train")
    for position, modality_name in enumerate(["rgb", "ndvi"]):
        bands = ["red", "green", "blue"] if modality_name == "rgb" else ["ndvi"]
        fields = {"title": modality_name.upper(), "bands": bands, "range_min": 0, "range_max": 1}
        modality, _ = Modality.objects.get_or_create(name=modality_name, defaults=fields)
        CampaignModality.objects.create(campaign=campaign, modality=modality, position=position, is_anchor=not position)
    if created:
        for number in range(16):
            _build_tile(grid, region, col=-5500 + number % 4, row=-1000 + number // 4)
    return campaign


def _build_tile(grid: TileGrid, region: Region, col: int, row: int) -> None:
    tile = Tile(grid=grid, region=region, col=col, row=row, key=f"{grid.name}_2021_c{col}_r{row}", **PERIOD)
    corners = [[0, 0], [TILE_SIZE, 0], [TILE_SIZE, TILE_SIZE], [0, TILE_SIZE]]
    tile.geometry = to_geos(to_geographic(tile, [corners]))
    tile.save()


def build_tasks(campaign: Campaign, count: int = 1) -> list[AnnotationTask]:
    """PENDING tasks for the first tiles without one, in a new batch."""
    number = campaign.batches.count() + 1
    batch = AcquisitionBatch.objects.create(campaign=campaign, number=number, strategy="random", seed=0, candidates=16)
    free = Tile.objects.exclude(tasks__campaign=campaign).order_by("id")[:count]
    return [
        AnnotationTask.objects.create(campaign=campaign, tile=tile, batch=batch, rank=rank)
        for rank, tile in enumerate(free)
    ]


def build_champion(campaign: Campaign, number: int = 1) -> ModelVersion:
    """A model version, and the champion alias pointing at it."""
    version = ModelVersion.objects.create(
        campaign=campaign,
        number=number,
        name=f"{campaign.name}-v{number}",
        path="models/x",
        checksum="0" * 64,
        card={"architecture": NETWORK_VERSION},
    )
    ModelAlias.objects.update_or_create(campaign=campaign, alias="champion", defaults={"model_version": version})
    return version


def build_prediction(tile: Tile, version: ModelVersion, instances: Any = None, uncertainty: float = 0.5) -> Prediction:
    """A prediction of (rings in tile pixels, score): a square, a ring with a hole, and one nobody is shown."""
    prediction = Prediction.objects.create(
        tile=tile, model_version=version, embedding=b"\0" * 16, uncertainty=uncertainty
    )
    shapes = [([SQUARE], 0.9), ([RING, HOLE], 0.6), ([SQUARE], 0.1)] if instances is None else instances
    for number, (rings, score) in enumerate(shapes):
        PredictedInstance.objects.create(
            prediction=prediction,
            region_id=f"p{number}",
            landform_class=build_landform(),
            rings=rings,
            geometry=to_geos(to_geographic(tile, rings)),
            score=score,
            stage_scores=[score] * 3,
            stage_boxes=[[0, 0, 1, 1]] * 3,
            mask_entropy=0.2,
        )
    return prediction


def inside(tile: Tile) -> MultiPolygon:
    """Most of a tile: a margin of some metres is left."""
    return MultiPolygon(tile.geometry.buffer(-1e-4), srid=4326)


def build_import(campaign: Campaign, coverage: MultiPolygon, **fields: Any) -> LabelImport:
    """An import without features that labels what it covers."""
    fields = {"file_name": "x", "checksum": "0" * 64} | fields
    return LabelImport.objects.create(campaign=campaign, coverage=coverage, **fields)


def build_neighbour() -> Campaign:
    """Another campaign on the same tiles, with numbers in Label Studio that others have, too, as after a move.

    One task is submitted (with a label), one is not understood, one waits; an import covers all tiles.
    """
    campaign = build_campaign("neighbour")
    tasks = build_tasks(campaign, 3)
    prediction = build_prediction(tasks[0].tile, build_champion(campaign))
    for number, task in enumerate(tasks, start=1):
        task.ls_task_id, task.state, task.prediction = number, "open", prediction if number == 1 else None
        task.save()
    record_payload(tasks[0], annotation(7, polygon(RING)), people={1: "next@example.org"})
    record_payload(tasks[1], annotation(8, polygon(SQUARE, label="Pingo")))
    everywhere = campaign.regions.get().geometry
    build_import(campaign, everywhere, unclear=inside(tasks[2].tile))
    return campaign


def rows_of(campaign: Campaign) -> dict[str, list[dict[str, Any]]]:
    """All that the labeling room holds of a campaign, as stored."""
    queries = [
        Campaign.objects.filter(pk=campaign.pk),
        AcquisitionBatch.objects.filter(campaign=campaign),
        AnnotationTask.objects.filter(campaign=campaign),
        Preannotation.objects.filter(task__campaign=campaign),
        Prediction.objects.filter(model_version__campaign=campaign),
        Annotation.objects.filter(task__campaign=campaign),
        LabelImport.objects.filter(campaign=campaign),
        Label.objects.filter(campaign=campaign),
        LabelRevision.objects.filter(label__campaign=campaign),
    ]
    return {query.model.__name__: list(query.order_by("pk").values()) for query in queries}


def polygon(points: Any, region: str = "r1", label: str = "RTS") -> dict[str, Any]:
    """A region as an annotator's browser submits it; points in tile pixels."""
    percent = [[100 * x / TILE_SIZE, 100 * y / TILE_SIZE] for x, y in points]
    return {
        "id": region,
        "from_name": "polygons",
        "to_name": "picture_rgb",
        "type": "polygonlabels",
        "original_width": TILE_SIZE,
        "original_height": TILE_SIZE,
        "image_rotation": 0,
        "origin": "manual",
        "value": {"points": percent, "closed": True, "polygonlabels": [label]},
    }


def annotation(identifier: int = 7, *regions: Any, minute: int = 0, **changes: Any) -> dict[str, Any]:
    """An annotation as Label Studio gives it."""
    return {
        "id": identifier,
        "result": list(regions),
        "was_cancelled": False,
        "updated_at": f"2026-11-22T08:{minute:02}:00.123456Z",
        "lead_time": 12.5,
        "completed_by": 1,
        "parent_prediction": None,
    } | changes
