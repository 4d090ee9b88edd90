"""Published inventories, imported whole."""

import os
from pathlib import Path

import pytest
from django.db.models import Count
from pytest_django import Settings
from shapely.geometry import box

from labeling.selectors import current_labels
from tests.releases.site import PERIOD
from thawloop.campaigns.models import Campaign, CampaignRegion, LandformClass
from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.services import define_grid, define_region
from thawloop.releases.services import import_labels

REAL_DATA = Path(os.environ.get("THAWLOOP_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no real data in {REAL_DATA}")
# Read, created, exact duplicates, repaired.
EXPECTED = {
    # Four are self-intersecting, one of them twice the same.
    "polygons/Segal2015/Banks_Island_Slumps_V2.shp": (832, 689, 143, 3),
    "polygons/Witharana2022/ESL_RTS_LTA_98P_cleaned.shp": (356, 356, 0, 1),
    "polygons/Ramage2017/Coastal_slp_2011_FI.shp": (286, 286, 0, 3),
    "polygons/Nesterova2021_Leibman2023/RTS_2021_polyg.geojson": (97, 97, 0, 0),
    "polygons/Huang2022/HotWeatherCreek_slumps.kml": (162, 162, 0, 0),
    "polygons/nitze_ml_training_labels/TrainingLabel_RTS_PlanetScope_Nitze_iteration001.gpkg": (2182, 1574, 608, 4),
    "imagery/peel_rts/experts/01/Peel_digitized.shp": (None, None, 0, 0),
}


@pytest.fixture
def arctic(db: None, settings: Settings) -> Campaign:
    """A campaign that maps the whole Arctic."""
    settings.THAWLOOP_DATA_ROOTS = [str(REAL_DATA)]
    grid = define_grid("arctic", 3413, 10.0, 256)
    campaign = Campaign.objects.create(name="arctic", title="Arctic", grid=grid, **PERIOD)
    campaign.classes.add(LandformClass.objects.get_or_create(name="RTS")[0])
    region = define_region("arctic", box(-180, 55, 180, 85))
    CampaignRegion.objects.create(campaign=campaign, region=region, split="train")
    return campaign


@pytest.mark.parametrize("name", EXPECTED)
def test_inventory_is_imported_and_a_second_time_changes_nothing(arctic: Campaign, name: str) -> None:
    found = import_labels(arctic, REAL_DATA / name)

    counts = tuple(found.counts[key] for key in ("read", "created", "duplicate", "repaired"))
    read, created, duplicate, repaired = EXPECTED[name]
    assert counts[2:] == (duplicate, repaired)
    if read is not None:
        assert counts[:2] == (read, created)
    assert found.counts["refused"] == found.counts["outside"] == 0
    assert current_labels(arctic).count() == found.counts["created"] == found.revisions.count()
    assert import_labels(arctic, REAL_DATA / name) == found
    assert not arctic.labels.annotate(number=Count("revisions")).exclude(number=1).exists()


def test_later_iteration_of_an_inventory_adds_only_what_is_new(arctic: Campaign) -> None:
    folder = REAL_DATA / "polygons" / "nitze_ml_training_labels"
    first = import_labels(arctic, folder / "TrainingLabel_RTS_PlanetScope_Nitze_iteration002.gpkg")
    second = import_labels(arctic, folder / "TrainingLabel_RTS_PlanetScope_Nitze_iteration003.gpkg")
    total = first.counts["created"] + second.counts["created"]
    assert current_labels(arctic).count() == total
    assert second.counts["created"] + second.counts["unchanged"] + second.counts["duplicate"] == 410


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("polygons/Bernhard2022/RTS_data_Location.kml", "1,832 points and no polygon"),
        ("polygons/Barth2023/BL/BL_Transects.shp", "no usable polygon: all 643 features are refused"),
        ("polygons/Segal2015/Banks_Island_Study_Area.shp", "does not say its coordinate system"),
        ("polygons/Metadata_Format_Summary.csv", "no geometry column"),
    ],
)
def test_what_is_no_inventory_is_refused(arctic: Campaign, name: str, sentence: str) -> None:
    with pytest.raises(VectorFileRefused, match=sentence):
        import_labels(arctic, REAL_DATA / name)
    assert not arctic.imports.exists()
