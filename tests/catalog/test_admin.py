"""The catalog in the admin pages."""

import json
import re

import numpy as np
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.catalog.periods import YEAR
from thawloop.catalog.errors import DefinitionRefused
from thawloop.catalog.models import Modality, Region, Tile, TileGrid
from thawloop.catalog.services import amend, create_tiles, ensure_builtin
from thawloop.core.models import AuditEntry

pytestmark = pytest.mark.django_db
PAGES = ("modality", "tilegrid", "region", "scene", "tile")


@pytest.fixture
def lead(client):
    client.force_login(get_user_model().objects.create_superuser("lead"))
    return client


@pytest.fixture
def filled(make_scene, make_tile):
    scene = make_scene(np.ones((200, 200), np.uint8))
    return {"scene": scene, "modality": scene.modality, "tile": (tile := make_tile(500_700, 7_599_000)),
            "region": tile.region, "tilegrid": tile.grid}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_without_the_internet(lead, filled, page):
    answers = [lead.get(f"/admin/catalog/{page}/"), lead.get(f"/admin/catalog/{page}/{filled[page].pk}/change/")]
    for answer in answers:
        assert answer.status_code == 200
        loaded = re.findall(r'<(?:script|link)[^>]+(?:src|href)="([^"]+)"', answer.content.decode())
        assert not [address for address in loaded if address.startswith(("http", "//"))]
    if page in ("region", "scene", "tile"):
        assert b"vendor/ol/ol" in answers[1].content


@pytest.mark.parametrize("page", PAGES)
def test_a_longer_list_costs_no_more_queries(lead, make_scene, grid, make_region, page):
    def fill(number: int) -> None:
        make_scene(np.full((20, 20), number, np.uint8), name=f"{number}.tif")
        ensure_builtin(["slope", "hillshade", "relative_elevation"][number])
        TileGrid.objects.create(name=f"g{number}", srid=3413, pixel_size=number + 5, tile_size=64)
        region = make_region(f"r{number}", 500_000 + 9000 * number, 7_600_000, 503_000 + 9000 * number, 7_602_000)
        create_tiles(grid, region, **YEAR)

    counts = []
    for number in range(3):
        fill(number)
        with CaptureQueriesContext(connection) as queries:
            assert lead.get(f"/admin/catalog/{page}/").status_code == 200
        counts.append(len(queries))
    assert counts[1] == counts[2]


def test_a_region_is_drawn_and_defined(lead):
    square = {"type": "MultiPolygon", "coordinates": [[[[-15e6, 1e7], [-14e6, 1e7], [-14e6, 1.1e7], [-15e6, 1e7]]]]}
    answer = lead.post("/admin/catalog/region/add/", {"name": "drawn", "title": "", "geometry": json.dumps(square)})
    assert answer.status_code == 302, answer.content.decode()[-2000:]
    west, *_ = Region.objects.get(name="drawn").geometry.extent
    assert west == pytest.approx(-134.7, abs=0.1)
    assert AuditEntry.objects.get(action="catalog.define_region").actor_name == "lead"


def test_a_refused_definition_is_said_on_the_page(lead):
    form = {"name": "degrees", "srid": 4326, "pixel_size": 1, "tile_size": 64, "overlap": 0}
    answer = lead.post("/admin/catalog/tilegrid/add/", form)
    assert b"is geographic" in answer.content
    assert not TileGrid.objects.exists()


def test_wording_may_change_and_is_audited(lead):
    modality = ensure_builtin("rgb")
    answer = lead.post(f"/admin/catalog/modality/{modality.pk}/change/", {"title": "True colour", "colormap": ""})
    assert answer.status_code == 302, answer.content.decode()[-2000:]
    assert Modality.objects.get().title == "True colour"
    entry = AuditEntry.objects.get(action="catalog.amend_modality")
    assert (entry.before, entry.after) == ({"title": "Colour"}, {"title": "True colour"})


def test_what_a_thing_is_stays_fixed(lead):
    modality = ensure_builtin("rgb")
    with pytest.raises(DefinitionRefused, match="range_max is fixed"):
        amend(modality, {"range_max": 5})
    lead.post(f"/admin/catalog/modality/{modality.pk}/change/", {"title": "x", "range_max": 5})
    assert Modality.objects.get().range_max == 1


def test_nothing_is_deleted_here(lead, filled):
    for page in PAGES:
        assert lead.post(f"/admin/catalog/{page}/{filled[page].pk}/delete/", {"post": "yes"}).status_code == 403
    assert Tile.objects.exists()
