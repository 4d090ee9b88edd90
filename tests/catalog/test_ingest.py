"""`manage.py ingest`."""

import io
import json

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from thawloop.catalog.models import Modality, Scene, Tile
from thawloop.core.models import AuditEntry

pytestmark = pytest.mark.django_db
ONES = np.ones((3, 100, 100), np.uint8)


def ingest(*args: object, **options: object) -> dict:
    out = io.StringIO()
    options = {"modality": "rgb", "date": "2021-07-15", **options}
    call_command("ingest", *map(str, args), *(f"--{k.replace('_', '-')}={v}" for k, v in options.items()), "--json",
                 stdout=out)  # fmt: skip
    return json.loads(out.getvalue())


def test_files_are_registered_once(write_raster):
    paths = [write_raster(ONES * n, f"{n}.tif") for n in (1, 2)]

    assert ingest(*paths)["registered"] == 2
    again = ingest(*paths)

    assert (again["registered"], again["already_registered"]) == (0, 2)
    assert Scene.objects.count() == 2
    assert Modality.objects.get().name == "rgb"
    entry = AuditEntry.objects.filter(action="catalog.register_scene").first()
    assert entry.actor_name.endswith("(manage.py ingest)")


def test_one_bad_file_keeps_all_out(write_raster, tmp_path):
    good = write_raster(ONES)
    (tmp_path / "bad.tif").write_bytes(b"no raster")

    with pytest.raises(CommandError, match=r"bad\.tif is of a format") as refusal:
        ingest(good, tmp_path / "bad.tif")

    assert refusal.value.returncode == 1
    assert not Scene.objects.exists()
    assert not Modality.objects.exists()


def test_a_dry_run_says_what_would_happen_and_does_nothing(write_raster):
    out = io.StringIO()
    call_command("ingest", str(write_raster(ONES)), "--modality=rgb", "--date=2021-07-15", "--dry-run", "--json",
                 stdout=out)  # fmt: skip
    said = json.loads(out.getvalue())
    assert said["registered"] == 1
    assert said["scenes"][0]["id"] is None
    assert not Scene.objects.exists()
    assert not Modality.objects.exists()
    assert not AuditEntry.objects.exists()


def test_options_reach_the_scene(write_raster):
    ingest(
        write_raster(np.ones((7, 50, 50), np.uint16)),
        band_indexes="4,3,2", scale=0.0001, offset=-0.1, nodata=0, mask_band=7, provider="ESA", licence="CC-BY-4.0",
    )  # fmt: skip
    scene = Scene.objects.get()
    assert scene.band_indexes == [4, 3, 2]
    assert (scene.scale, scene.offset, scene.nodata, scene.mask_band) == (0.0001, -0.1, 0, 7)
    assert (scene.provider, scene.licence) == ("ESA", "CC-BY-4.0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"date": "15.7.2021"}, "not a date"),
        ({"band_indexes": "red"}, "not a list of bands"),
        ({"scale": "x"}, "float"),
    ],
)
def test_wrong_usage_is_explained(write_raster, options, said):
    with pytest.raises(CommandError, match=said):
        ingest(write_raster(ONES), **options)


def test_an_unknown_modality_is_refused_with_the_builtin_ones(write_raster):
    with pytest.raises(CommandError, match=r"`radar` is neither defined nor built in \(.*rgb"):
        ingest(write_raster(ONES), modality="radar")


def test_an_unknown_campaign_is_refused(write_raster):
    with pytest.raises(CommandError, match="nowhere"):
        ingest(write_raster(ONES), campaign="nowhere")


def test_a_campaign_gets_the_tiles_its_regions_now_have_rasters_for(write_raster, grid, make_region):
    from tests.catalog.periods import YEAR
    from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion
    from thawloop.catalog.services import ensure_builtin

    campaign = Campaign.objects.create(name="c", title="C", grid=grid, **YEAR)
    region = make_region("r", 499_000, 7_590_000, 510_000, 7_601_000)
    CampaignRegion.objects.create(campaign=campaign, region=region)
    CampaignModality.objects.create(campaign=campaign, modality=ensure_builtin("rgb"), position=0, is_anchor=True)

    made = ingest(write_raster(ONES), campaign="c")["tiles_made"]
    again = ingest(write_raster(ONES), campaign="c")["tiles_made"]

    assert made == Tile.objects.filter(region=region).count() > 0
    assert again == 0


def test_the_result_reads_well_for_people(write_raster):
    out = io.StringIO()
    call_command("ingest", str(write_raster(ONES)), "--modality=rgb", "--date=2021-07-15", stdout=out)
    assert "Registered 1 scene of rgb" in out.getvalue()
    assert "scene.tif (100 x 100 px of 10.004 m, bands 1,2,3, 100.0% valid)" in out.getvalue()
