"""The map's tiles, read back by GDAL's own MVT reader."""

import math
from pathlib import Path

import pyogrio
import pytest
from django.contrib.gis.db.models import Extent
from django.contrib.gis.db.models.functions import Transform
from django.db import connection
from django.test import Client
from django.urls import reverse

from benchmarks.scale_campaign import fill
from thawloop.campaigns.models import Campaign
from thawloop.dashboard.vector_tiles import HALF_EXTENT, LEAST_CELL_PX, MAX_ZOOM, TILE_PX, square, vector_tile
from thawloop.registry.selectors import champion


def _around(campaign: Campaign, zoom: int) -> tuple[int, int]:
    """Column and row of the map tile that holds the campaign's first tile."""
    corner = campaign.tasks.earliest("rank").tile.geometry.transform(3413, clone=True).centroid
    side = 2 * HALF_EXTENT / 2**zoom
    return math.floor((corner.x + HALF_EXTENT) / side), math.floor((HALF_EXTENT - corner.y) / side)


def test_squares_of_a_zoom_cover_their_parent_exactly() -> None:
    left, bottom, right, top = square(5, 11, 20)
    children = [square(6, x, y) for x in (22, 23) for y in (40, 41)]
    assert (min(c[0] for c in children), min(c[1] for c in children)) == (left, bottom)
    assert (max(c[2] for c in children), max(c[3] for c in children)) == (right, top)


@pytest.mark.parametrize("place", [(-1, 0, 0), (0, 1, 0), (3, 0, 8), (MAX_ZOOM + 1, 0, 0)])
def test_places_outside_the_scheme_are_refused(place: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no map tile"):
        square(*place)


def test_map_tile_holds_tiles_and_the_champions_instances(campaign: Campaign, tmp_path: Path) -> None:
    zoom = 13
    x, y = _around(campaign, zoom)
    path = tmp_path / "tile.mvt"
    path.write_bytes(vector_tile(campaign, champion(campaign).pk, zoom, x, y))
    counts = {name: pyogrio.read_info(path, layer=name)["features"] for name, _ in pyogrio.list_layers(path)}
    assert counts["tiles"] == 16
    assert counts["instances"] == 2  # the third is below the campaign's score threshold
    assert counts["regions"] == 1


def _layers(campaign: Campaign, zoom: int, path: Path) -> dict[str, list[dict]]:
    """Attributes of the features of each layer around the campaign's first tile."""
    body = vector_tile(campaign, champion(campaign).pk, zoom, *_around(campaign, zoom))
    path.write_bytes(body)
    names = [name for name, _ in pyogrio.list_layers(path)]
    return {name: pyogrio.read_dataframe(path, layer=name).to_dict("records") for name in names}


def test_cells_too_small_to_see_are_drawn_in_blocks_that_count_them(campaign: Campaign, tmp_path: Path) -> None:
    campaign.tasks.filter(rank=0).update(state="submitted")
    far, near = _layers(campaign, 3, tmp_path / "far.mvt"), _layers(campaign, 13, tmp_path / "near.mvt")
    assert "tiles" not in far
    assert "blocks" not in near
    assert sum(block["tiles"] for block in far["blocks"]) == 16
    assert sum(block["submitted"] for block in far["blocks"]) == 1
    assert sum(block["waiting"] for block in far["blocks"]) == 2
    assert [heap["count"] for heap in far["instances"]] == [2]
    assert {(tile["col"], tile["row"]) for tile in near["tiles"]} >= {(-5500, -1000), (-5497, -997)}


def test_no_zoom_sends_more_than_can_be_seen(db: None, tmp_path: Path) -> None:
    grown = fill(900, vertices=5_000)
    area = grown.regions.annotate(polar=Transform("geometry", 3413)).aggregate(extent=Extent("polar"))["extent"]
    x, y = (area[0] + area[2]) / 2, (area[1] + area[3]) / 2
    shown = []
    for zoom in range(2, 15):
        side = 2 * HALF_EXTENT / 2**zoom
        place = math.floor((x + HALF_EXTENT) / side), math.floor((HALF_EXTENT - y) / side)
        body = vector_tile(grown, grown.aliases.get().model_version_id, zoom, *place)
        assert len(body) < 500_000, zoom
        path = tmp_path / f"{zoom}.mvt"
        path.write_bytes(body)
        layers = {name: pyogrio.read_dataframe(path, layer=name) for name, _ in pyogrio.list_layers(path)}
        cells = layers["blocks"] if "blocks" in layers else layers["tiles"]
        assert len(cells) <= (TILE_PX / LEAST_CELL_PX + 2) ** 2
        assert len(layers["regions"].get_coordinates()) < 4 * TILE_PX
        shown.append(len(cells))
        labels = layers["labels"]
        if zoom == 2:
            assert labels["count"].sum() == grown.labels.count()
            assert cells["tiles"].sum() == 900
    assert max(shown) > 400, "from near, every tile is drawn by itself"


def test_map_tile_over_http_and_outside_it(lead: Client, campaign: Campaign) -> None:
    x, y = _around(campaign, 13)
    answer = lead.get(reverse("map-tile", args=[campaign.name, 13, x, y]))
    assert answer["Content-Type"] == "application/vnd.mapbox-vector-tile"
    assert answer.content
    assert lead.get(reverse("map-tile", args=[campaign.name, 2, 9, 0])).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("table", "index"),
    [
        ("catalog_tile", "tile_polar"),
        ("labeling_labelrevision", "revision_polar"),
        ("labeling_predictedinstance", "instance_polar"),
    ],
)
def test_the_maps_question_can_be_answered_from_an_index(table: str, index: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            f"EXPLAIN SELECT 1 FROM {table} WHERE ST_Transform(geometry, 3413) && ST_MakeEnvelope(0, 0, 9, 9, 3413)"
        )
        assert index in " ".join(line for (line,) in cursor.fetchall())
