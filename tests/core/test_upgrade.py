"""An installation of before: its rows are carried over by the migrations, and mean what they meant."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from django.contrib.auth.models import User
from django.contrib.gis.geos import MultiPolygon
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from pytest_django import Settings
from rest_framework.authtoken.models import Token
from shapely.geometry import box

from labeling.models import Annotation, AnnotationTask, LabelImport, LabelRevision, Preannotation
from labeling.selectors import current_labels, labelled_tiles
from thawloop.campaigns.models import Campaign
from thawloop.catalog.chips import read_chip
from thawloop.catalog.geometry import project, to_geos
from thawloop.catalog.models import Modality, Tile
from thawloop.core.jobs import run_inline
from thawloop.core.models import Job

# The newest migrations of 28 November 2026, before submissions were judged in full.
BEFORE = [
    ("catalog", "0003_polar_index"),
    ("core", "0003_job_not_before"),
    ("labeling", "0005_task_without_project"),
    ("releases", "0002_release_tile_annotation"),
    ("training", "0003_training_run_init"),
]
SRID, PIXEL, SIZE = 32608, 10.0, 64
PERIOD = {"period": "2021", "period_start": date(2021, 1, 1), "period_end": date(2021, 12, 31)}
SQUARE, EIGHT = [(10, 10), (50, 10), (50, 50), (10, 50)], [(10, 10), (90, 90), (90, 10), (10, 90)]


@pytest.fixture
def before() -> Iterator[Any]:
    """The database as it was, and its models."""
    try:
        executor = MigrationExecutor(connection)
        executor.migrate(BEFORE)
        yield executor.loader.project_state(BEFORE).apps
    finally:
        migrate()


def migrate() -> None:
    """Bring the database up to date."""
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


def outline(row: int, inset: float = 0.0) -> Any:
    """Of a tile of column 800, as geographic coordinates."""
    side = SIZE * PIXEL
    left, bottom = 800 * side, row * side
    return to_geos(project(box(left + inset, bottom + inset, left + side - inset, bottom + side - inset), SRID, 4326))


def drawn(region: str, points: list[tuple[float, float]]) -> dict[str, Any]:
    """A region as Label Studio gives it, in percent."""
    value = {"points": points, "closed": True, "polygonlabels": ["RTS"]}
    return {"id": region, "type": "polygonlabels", "from_name": "polygons", "to_name": "picture_rgb", "value": value}


def build_campaign(apps: Any) -> Any:
    """A campaign of four tiles, as an earlier version kept it."""
    grid = apps.get_model("catalog", "TileGrid").objects.create(name="utm", srid=SRID, pixel_size=PIXEL, tile_size=SIZE)
    campaign = apps.get_model("labeling", "Campaign").objects.create(
        name="old", title="Old", grid=grid, ls_project_id=7, ls_synced_until="2021-10-02T00:00:00Z", **PERIOD
    )
    campaign.classes.add(apps.get_model("labeling", "LandformClass").objects.create(name="RTS"))
    everywhere = to_geos(project(box(500_000, 7_500_000, 530_000, 7_700_000), SRID, 4326))
    region = apps.get_model("catalog", "Region").objects.create(name="old", geometry=_multi(everywhere))
    apps.get_model("labeling", "CampaignRegion").objects.create(campaign=campaign, region=region, split="train")
    tiles = apps.get_model("catalog", "Tile").objects
    for row in range(11_800, 11_804):
        tiles.create(grid=grid, region=region, col=800, row=row, key=f"t{row}", geometry=outline(row), **PERIOD)
    return campaign


def _multi(shape: Any) -> MultiPolygon:
    return MultiPolygon(shape, srid=4326)


def build_tasks(apps: Any, campaign: Any) -> None:
    """A task that was understood, one that was not, one not yet pushed; an import."""
    model = apps.get_model
    version = model("training", "ModelVersion").objects.create(
        campaign=campaign, name="old-v1", number=1, path="models/old", checksum="0" * 64
    )
    clear, unclear, waiting, _ = model("catalog", "Tile").objects.order_by("row")
    prediction = model("labeling", "Prediction").objects.create(
        tile=clear, model_version=version, embedding=b"\0" * 16, uncertainty=0.5
    )
    tasks = model("labeling", "AnnotationTask").objects
    given = tasks.create(campaign=campaign, tile=clear, state="submitted", ls_task_id=1, prediction=prediction)
    other = tasks.create(campaign=campaign, tile=unclear, state="submitted", ls_task_id=2)
    tasks.create(campaign=campaign, tile=waiting)
    landform = model("labeling", "LandformClass").objects.get()
    for task, number, result, problems in (
        (given, 1, [drawn("r1", SQUARE)], []),
        (other, 2, [drawn("r1", SQUARE), drawn("r2", EIGHT)], ["Region 2 (r2): its outline crosses itself."]),
    ):
        said = model("labeling", "Annotation").objects.create(
            task=task, ls_annotation_id=number, ls_updated_at="2021-10-01T00:00:00Z", kind="submitted",
            result=result, problems=problems,
        )  # fmt: skip
        label = model("labeling", "Label").objects.create(campaign=campaign, tile=task.tile, origin=f"ls:{number}:r1")
        label.current = model("labeling", "LabelRevision").objects.create(
            label=label, number=1, landform_class=landform, geometry=_multi(outline(task.tile.row, 80)),
            annotation=said, reason="submitted",
        )  # fmt: skip
        label.save()
    model("labeling", "LabelImport").objects.create(campaign=campaign, file_name="old.geojson", checksum="1" * 64)


def build_scene(apps: Any, path: Path) -> np.ndarray:
    """A scene on the first tile whose alpha band ingest would take for a label mask today; returns its pixels."""
    tile = apps.get_model("catalog", "Tile").objects.order_by("row")[0]
    transform = Affine(PIXEL, 0, 800 * SIZE * PIXEL, 0, -PIXEL, (tile.row + 1) * SIZE * PIXEL)
    pixels = np.random.default_rng(0).integers(40, 200, (4, SIZE, SIZE), dtype=np.uint8)
    pixels[3] = 0
    pixels[3, 20:30, 20:40] = 255
    with rasterio.open(
        path, "w", "GTiff", SIZE, SIZE, 4, f"EPSG:{SRID}", transform, "uint8", photometric="rgb", alpha="yes"
    ) as file:
        file.write(pixels)
        wkt = file.crs.to_wkt()
    modality = apps.get_model("catalog", "Modality").objects.create(
        name="rgb", title="RGB", bands=["red", "green", "blue"], range_min=0, range_max=255, resampling="nearest"
    )
    apps.get_model("catalog", "Scene").objects.create(
        modality=modality, uri=str(path), band_indexes=[1, 2, 3], footprint=_multi(tile.geometry), crs=wkt,
        width=SIZE, height=SIZE, transform=list(transform)[:6], pixel_size=PIXEL, dtype="uint8",
        acquired=date(2021, 7, 1), checksum="2" * 64, size_bytes=path.stat().st_size,
    )  # fmt: skip

    return pixels


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_what_an_earlier_version_kept_means_the_same_after_the_migrations(
    before: Any, tmp_path: Path, settings: Settings, client: Client
) -> None:
    settings.THAWLOOP_DATA_ROOTS = [str(tmp_path)]
    build_tasks(before, build_campaign(before))
    pixels = build_scene(before, tmp_path / "alpha.tif")
    key = Token.objects.create(user=User.objects.create_superuser("old")).key

    migrate()

    check_tasks()
    check_scene(pixels)
    assert client.get("/api/jobs/", headers={"Authorization": f"Token {key}"}).status_code == 200


def check_tasks() -> None:
    """Tasks keep what they were given; nothing is lost; a job settles what was not understood."""
    campaign = Campaign.objects.get()
    assert (campaign.ls_project_id, campaign.ls_generation, campaign.ls_mark) == (7, 0, "")
    assert campaign.ls_synced_until is None  # everything is synced once, to tell annotators
    given = Preannotation.objects.order_by("task__ls_task_id")
    assert list(given.values_list("name", "prediction__tile__key", "removed")) == [
        ("old-v1", "t11800", False),
        ("no-model", None, False),
    ]
    assert LabelImport.objects.get().withdrawn is None
    assert (Annotation.objects.count(), LabelRevision.objects.count()) == (2, 2)

    assert run_inline(Job.objects.get(function="labeling.labelstudio.jobs.settle").pk).state == "succeeded"

    states = AnnotationTask.objects.order_by("tile__row").values_list("state", flat=True)
    assert list(states) == ["submitted", "returned", "pending"]
    assert [tile.key for tile in labelled_tiles(campaign)] == ["t11800"]
    assert current_labels(campaign).get().label.origin == "ls:1:r1"


def check_scene(pixels: np.ndarray) -> None:
    """The alpha band says what is valid, as it did."""
    chip = read_chip(Tile.objects.select_related("grid").get(row=11_800), list(Modality.objects.all()))
    np.testing.assert_array_equal(chip.valid["rgb"], pixels[3] == 255)
    np.testing.assert_array_equal(chip.arrays["rgb"][:, 20:30, 20:40], pixels[:3, 20:30, 20:40])
