"""A label file that lost a feature makes no statement about the tiles on which it lay."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import Point, mapping

from labeling.selectors import labelled_tiles, unlabelled_tiles
from tests.releases.site import Site, annotate, tiles
from thawloop.campaigns.models import Campaign
from thawloop.releases.services import freeze_release, import_labels

pytestmark = pytest.mark.django_db
EIGHT = [(10, 10), (50, 50), (50, 10), (10, 50)]


def write(folder: Path, *geometries: Any) -> Path:
    """GeoJSON of geometries, also of some that shapely cannot hold."""
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    path = folder / "labels.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def lost_features(site: Site) -> dict[str, Any]:
    """Features on the lower left train tile of which nobody can say what was meant."""
    return {
        "outline like an 8": mapping(site.on_tile(0, 0, EIGHT)),
        "8 of two sizes": mapping(site.on_tile(0, 0, [(5, 5), (50, 50), (50, 10), (10, 45)])),
        "point": mapping(Point(site.square(0, 0).centroid)),
        "line": {"type": "LineString", "coordinates": mapping(site.square(0, 0))["coordinates"][0][:3]},
        "no area": {"type": "Polygon", "coordinates": [[mapping(site.square(0, 0))["coordinates"][0][0]] * 4]},
    }


@pytest.mark.parametrize("name", ["outline like an 8", "8 of two sizes", "point", "line", "no area"])
def test_a_tile_on_which_a_feature_was_lost_is_no_negative(
    campaign: Campaign, site: Site, data_root: Path, name: str
) -> None:
    sound = mapping(site.square(2, 2))
    found = import_labels(campaign, write(data_root, lost_features(site)[name], sound), coverage="regions")
    assert found.counts["lost"] == 1
    unclear = tiles(campaign, "train")[0]
    labelled = set(labelled_tiles(campaign))
    assert labelled == {*tiles(campaign, "train"), *tiles(campaign, "test")} - {unclear}
    assert set(unlabelled_tiles(campaign)) == {unclear}  # it can be given to an annotator

    release = freeze_release(campaign)

    assert unclear.pk not in {row.tile_id for row in release.release_tiles.all()}
    assert release.counts["tiles"]["train"] == 11
    annotate(campaign, unclear, [[(10.0, 10.0), (30.0, 10.0), (30.0, 30.0)]])
    assert labelled_tiles(campaign).count() == 18


def test_a_feature_that_lies_nobody_knows_where_leaves_the_whole_coverage_unclear(
    campaign: Campaign, site: Site, data_root: Path
) -> None:
    broken = {"type": "Polygon", "coordinates": [[[1e9, 1e9], [1e9, 2e9], [2e9, 2e9], [1e9, 1e9]]]}
    found = import_labels(campaign, write(data_root, broken, mapping(site.square(0, 0))), coverage="regions")
    assert (found.counts["refused"], found.counts["lost"]) == (1, 1)
    assert not labelled_tiles(campaign).exists()


def test_what_was_mended_without_doubt_and_rows_without_geometry_leave_nothing_unclear(
    campaign: Campaign, site: Site, label_file: Callable[..., Path], data_root: Path
) -> None:
    nick = site.on_tile(0, 0, [(10, 10), (50, 10), (50, 50), (49, 52), (51, 52), (48, 50), (10, 50)])
    found = import_labels(campaign, write(data_root, mapping(nick), None), coverage="regions")
    assert (found.counts["repaired"], found.counts["refused"]) == (1, 1)
    assert (found.unclear, found.counts["lost"]) == (None, 0)
    assert labelled_tiles(campaign).count() == 18


def test_without_a_coverage_nothing_is_said_of_tiles_anyway(campaign: Campaign, site: Site, data_root: Path) -> None:
    found = import_labels(campaign, write(data_root, mapping(site.on_tile(0, 0, EIGHT))))
    assert found.unclear is None
    assert not labelled_tiles(campaign).exists()
