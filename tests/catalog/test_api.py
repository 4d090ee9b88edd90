"""The catalog over REST."""

import numpy as np
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIRequestFactory, force_authenticate

from tests.catalog.periods import YEAR
from thawloop.catalog import api
from thawloop.catalog.models import Scene, Tile
from thawloop.catalog.services import create_tiles, ensure_builtin

pytestmark = pytest.mark.django_db
SQUARE = {"type": "Polygon", "coordinates": [[[10, 60], [11, 60], [11, 61], [10, 61], [10, 60]]]}


@pytest.fixture
def ask(db):
    """Call a viewset as a user with every permission (or none)."""
    lead = get_user_model().objects.create_superuser("lead")
    nobody = get_user_model().objects.create_user("nobody")

    def ask(viewset, method="get", data=None, *, allowed=True, query="", **lookup):
        request = getattr(APIRequestFactory(), method)(f"/{query}", data, format="json")
        force_authenticate(request, lead if allowed else nobody)
        action = ("retrieve" if lookup else "list") if method == "get" else "create"
        response = viewset.as_view({method: action})(request, **lookup)
        response.render()
        return response

    return ask


def test_a_raster_is_registered_201_and_known_200(ask, write_raster, make_modality):
    make_modality()
    body = {"uri": str(write_raster(np.ones((3, 50, 50), np.uint8))), "modality": "rgb", "acquired": "2021-07-15"}

    first, second = ask(api.SceneViewSet, "post", body), ask(api.SceneViewSet, "post", body)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.data["band_indexes"] == [1, 2, 3]
    assert first.data["footprint"]["type"] == "MultiPolygon"


def test_a_refusal_is_a_sentence_with_status_400(ask, make_modality):
    make_modality()
    answer = ask(api.SceneViewSet, "post", {"uri": "/etc/passwd", "modality": "rgb", "acquired": "2021-07-15"})
    assert answer.status_code == 400
    assert "outside the data roots" in answer.data["detail"]


def test_modalities_regions_and_grids_are_defined_through_services(ask):
    modality = {"name": "m", "bands": ["a"], "range_min": 0, "range_max": 1}
    grid = {"name": "g", "srid": 3413, "pixel_size": 3, "tile_size": 128, "overlap": 0}
    region = {"type": "Feature", "geometry": SQUARE, "properties": {"name": "r", "title": "R"}}
    for viewset, body in ((api.ModalityViewSet, modality), (api.TileGridViewSet, grid), (api.RegionViewSet, region)):
        assert ask(viewset, "post", body).status_code == 201
        assert ask(viewset, "post", body).status_code == 201  # the same again is fine
    assert ask(api.ModalityViewSet, "post", {**modality, "range_max": 2}).status_code == 409
    assert ask(api.TileGridViewSet, "post", {**grid, "srid": 4326, "name": "h"}).status_code == 400
    assert ask(api.RegionViewSet, name="r").data["properties"]["title"] == "R"


def test_reading_needs_permission(ask):
    for viewset in (api.ModalityViewSet, api.RegionViewSet, api.SceneViewSet, api.TileGridViewSet, api.TileViewSet):
        assert ask(viewset, allowed=False).status_code == 403
        assert ask(viewset).status_code == 200


@pytest.fixture
def tiles(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 505_000, 7_603_000)
    create_tiles(grid, region, **YEAR)
    return list(Tile.objects.order_by("-pk"))


def test_tiles_are_geojson_page_by_page(ask, tiles):
    page = ask(api.TileViewSet, query="?page_size=10").data
    assert page["results"]["type"] == "FeatureCollection"
    assert [feature["id"] for feature in page["results"]["features"]] == [tile.key for tile in tiles[:10]]
    assert page["next"]


def test_a_page_of_tiles_costs_a_fixed_number_of_queries(ask, tiles):
    counts = []
    for size in (2, 20):
        with CaptureQueriesContext(connection) as queries:
            ask(api.TileViewSet, query=f"?page_size={size}&pictures=rgb")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 3


def keys(response) -> set[str]:
    return {feature["id"] for feature in response.data["results"]["features"]}


def test_tiles_are_found_by_box_region_grid_and_period(ask, tiles):
    west, south, east, north = tiles[0].geometry.extent
    found = keys(ask(api.TileViewSet, query=f"?bbox={west},{south},{east},{north}"))
    assert tiles[0].key in found
    assert len(found) < len(tiles)
    assert keys(ask(api.TileViewSet, query="?region=r&grid=utm&period=2021")) == {tile.key for tile in tiles}
    assert not keys(ask(api.TileViewSet, query="?period=1999"))
    assert not keys(ask(api.TileViewSet, query="?bbox=170,60,-170,70"))
    for broken in ("1,2,3", "a,b,c,d", "0,0,999,1", "0,50,1,40"):
        assert ask(api.TileViewSet, query=f"?bbox={broken}").status_code == 400


def test_a_tile_says_where_its_pictures_are(ask, tiles):
    ensure_builtin("rgb")
    tile = ask(api.TileViewSet, query="?pictures=rgb,unknown", key=tiles[0].key).data
    assert tile["properties"]["pictures"]["rgb"].split("?")[0].endswith(f"/tiles/{tiles[0].key}/rgb.png")


def test_scenes_are_found_by_box_modality_and_date(ask, make_scene):
    make_scene(np.ones((50, 50), np.uint8))
    for query, count in (
        ("?bbox=-140,60,-130,70", 1), ("?bbox=0,60,10,70", 0), ("?modality=m1", 1), ("?modality=other", 0),
        ("?acquired_after=2021-07-01&acquired_before=2021-07-31", 1), ("?acquired_after=2022-01-01", 0),
    ):  # fmt: skip
        assert len(ask(api.SceneViewSet, query=query).data["results"]) == count
    assert Scene.objects.count() == 1


def test_what_the_database_cannot_hold_is_refused(ask):
    for name in ("\0", "a\0b"):
        answer = ask(api.RegionViewSet, name=name)
        assert answer.status_code == 400
        assert "cannot be used" in answer.data["detail"]


def test_a_scene_without_a_number_as_nodata_is_readable(ask, make_scene):
    make_scene(np.ones((50, 50), np.float32), register={"nodata": float("nan")})
    assert ask(api.SceneViewSet).data["results"][0]["nodata"] is None
