"""Splits share nothing, and what a release leaves out is counted with its reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from labeling.selectors import Known, known_tiles
from labeling.services.imports import withdraw_import
from tests.releases.site import PERIOD, Site, annotate
from thawloop.campaigns.models import Campaign, CampaignRegion
from thawloop.catalog.models import Tile
from thawloop.catalog.services import create_tiles, define_region
from thawloop.releases.exports.features import label_tables
from thawloop.releases.membership import frozen_pairs
from thawloop.releases.models import Release
from thawloop.releases.separation import (
    BEYOND_COVERAGE,
    NEAR,
    NOT_ON_A_TILE,
    NOT_UNDERSTOOD,
    SHARES_OBJECT,
    in_words,
)
from thawloop.releases.services import freeze_release, import_labels, materialise
from thawloop.releases.splits import neighbours

pytestmark = pytest.mark.django_db
Write = Callable[..., Path]
INSIDE = [(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)]
AT_RIGHT_EDGE = [(40.0, 10.0), (64.0, 10.0), (64.0, 40.0), (40.0, 40.0)]
AT_LEFT_EDGE = [(0.0, 10.0), (20.0, 10.0), (20.0, 40.0), (0.0, 40.0)]
EIGHT = [(10.0, 10.0), (40.0, 40.0), (40.0, 10.0), (10.0, 40.0)]
ACROSS = [(0.0, 10.0), (64.0, 10.0), (64.0, 40.0), (0.0, 40.0)]


@pytest.fixture
def gapless(campaign: Campaign, site: Site) -> Campaign:
    """The column between the train tiles and the test tiles belongs to train, too."""
    region = define_region("site-between", site.block(4, 0, 1, 3))
    CampaignRegion.objects.create(campaign=campaign, region=region, split="train")
    create_tiles(campaign.grid, region, **PERIOD)
    return campaign


def at(site: Site, col: int, row: int) -> Tile:
    return Tile.objects.select_related("grid").get(col=site.origin[0] + col, row=site.origin[1] + row)


def left_out(release: Release) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = release.definition["provenance"]["left_out"]
    counts = {what: {why: len(names) for why, names in found[what].items()} for what in found}
    assert release.counts["left_out"] == counts
    return found


def test_an_imported_label_on_train_and_test_tiles_stays_in_test(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    across = site.on_tile(3, 0, [(32, 10), (160, 10), (160, 40), (32, 40)])
    import_labels(campaign, label_file(across, site.square(0, 0), site.square(3, 1)), coverage="regions")
    release = freeze_release(campaign)
    (label,) = release.release_labels.filter(revision__geometry__intersects=at(site, 5, 0).geometry)
    name = f"{at(site, 3, 0).key}/{label.revision.label_id}"
    assert left_out(release) == {"tiles": {}, "labels": {}, "parts": {SHARES_OBJECT: [name]}}
    assert release.counts["tiles"] == {"train": 12, "val": 0, "test": 6}
    assert release.counts["labels"] == {"train": 2, "val": 0, "test": 1}
    (table,) = label_tables(release, frozen_pairs(release))
    assert sorted(table.columns["split"]) == ["test", "train", "train"]


def test_of_a_shared_object_the_lower_splits_part_is_ignored_ground(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    across = site.on_tile(3, 0, [(32, 10), (160, 10), (160, 40), (32, 40)])
    import_labels(campaign, label_file(across, site.square(3, 0, 2, 45, 10), site.square(0, 0)), coverage="regions")
    folder = materialise(freeze_release(campaign))
    ignored = {}
    for split in ("train", "test"):
        content = json.loads((folder / "annotations" / f"{split}.json").read_text())
        names = {image["id"]: image["file_name"] for image in content["images"]}
        for found in content["annotations"]:
            ignored.setdefault((split, names[found["image_id"]]), []).append((found["ignore"], found["iscrowd"]))
    key = {place: f"{at(site, *place).key}.tif" for place in [(0, 0), (3, 0), (5, 0)]}
    assert {place: sorted(flags) for place, flags in ignored.items()} == {
        ("train", key[0, 0]): [(0, 0)],
        ("train", key[3, 0]): [(0, 0), (1, 1)],
        ("test", key[5, 0]): [(0, 0)],
    }
    card = (folder / "README.md").read_text()
    assert "- 1 parts: each is neither learnt nor counted on its tile" in card


@pytest.mark.parametrize(
    ("drawn", "test", "lost"),
    [
        ({(4, 0): AT_RIGHT_EDGE}, AT_LEFT_EDGE, [(4, 0)]),
        ({(4, 0): ACROSS, (3, 0): AT_RIGHT_EDGE, (2, 0): INSIDE}, AT_LEFT_EDGE, [(3, 0), (4, 0)]),
        ({(4, 0): AT_RIGHT_EDGE}, INSIDE, []),
        ({(4, 1): AT_RIGHT_EDGE, (4, 0): INSIDE}, AT_LEFT_EDGE, []),
    ],
)
def test_drawn_parts_of_one_object_are_in_one_split(
    gapless: Campaign,
    site: Site,
    drawn: dict[tuple[int, int], list[tuple[float, float]]],
    test: list[tuple[float, float]],
    lost: list[tuple[int, int]],
) -> None:
    annotate(gapless, at(site, 0, 2), [INSIDE])
    annotate(gapless, at(site, 5, 0), [test])
    for place, ring in drawn.items():
        annotate(gapless, at(site, *place), [ring])
    release = freeze_release(gapless)
    keys = sorted(at(site, *place).key for place in lost)
    found = left_out(release)
    assert (found["tiles"], found["labels"]) == ({}, {})
    assert {why: [name.split("/")[0] for name in names] for why, names in found["parts"].items()} == (
        {SHARES_OBJECT: keys} if keys else {}
    )


@pytest.mark.parametrize(("metres", "lost"), [(0, 0), (192, 0), (192.5, 3), (385, 6)])
def test_a_buffer_lies_between_splits(
    campaign: Campaign, site: Site, label_file: Write, metres: float, lost: int
) -> None:
    """Train and test are a column of tiles of 192 m apart."""
    campaign.split_buffer = metres
    campaign.save()
    import_labels(campaign, label_file(site.square(0, 0), site.square(6, 0)), coverage="regions")
    found = left_out(freeze_release(campaign))["tiles"]
    assert {why: len(keys) for why, keys in found.items()} == ({NEAR: lost} if lost else {})


def test_train_keeps_away_from_val_and_val_from_test() -> None:
    assert neighbours([(0, 0), (2, 0)], [(4, 0)], tile_size=10, overlap=0, buffer=10) == set()
    assert neighbours([(0, 0), (2, 0)], [(4, 0)], tile_size=10, overlap=0, buffer=11) == {(2, 0)}


def test_everything_that_is_left_out_has_a_reason(campaign: Campaign, site: Site, label_file: Write) -> None:
    """Tiles that reach beyond the coverage, that were not understood; labels on no labelled tile."""
    import_labels(campaign, label_file(site.square(5, 0), name="test.geojson"), splits=["test"], coverage="regions")
    west = site.block(0, 0, 1, 3, margin=0).union(site.on_tile(1, 0, [(0, 0), (30, 0), (30, 64), (0, 64)]).buffer(0))
    import_labels(campaign, label_file(site.square(0, 0), site.square(3, 2), name="train.geojson"), coverage=west)
    annotate(campaign, at(site, 2, 0), [EIGHT])
    found = left_out(freeze_release(campaign))
    assert found["tiles"] == {BEYOND_COVERAGE: [at(site, 1, 0).key], NOT_UNDERSTOOD: [at(site, 2, 0).key]}
    assert {why: len(labels) for why, labels in found["labels"].items()} == {NOT_ON_A_TILE: 1}
    assert [sentence.split(":")[0] for sentence in in_words(found)] == ["1 tiles", "1 tiles", "1 labels"]


def test_a_withdrawn_import_leaves_nothing_out(campaign: Campaign, site: Site, label_file: Write) -> None:
    half = site.on_tile(1, 0, [(0, 0), (30, 0), (30, 64), (0, 64)]).buffer(0)
    found = import_labels(campaign, label_file(site.square(0, 0)), coverage=half)
    assert [(row.key, row.known) for row in known_tiles(campaign)] == [(at(site, 1, 0).key, Known.PARTLY_COVERED)]
    withdraw_import(found, reason="the wrong place")
    assert not known_tiles(campaign)


def test_the_data_card_tells_terms_and_what_is_left_out(campaign: Campaign, site: Site, label_file: Write) -> None:
    from thawloop.core.storage import artifact

    import_labels(campaign, label_file(site.square(0, 0), site.square(5, 0)), coverage="regions")
    without = freeze_release(campaign)
    campaign.licence, campaign.citation = "CC-BY-4.0", "Somebody et al. 2026"
    campaign.split_buffer = 200
    campaign.save()
    release = freeze_release(campaign)
    assert (without.version, release.version) == ("1.0.0", "1.1.0"), "terms are part of a release"
    materialise(release)
    card = (artifact(release.path) / "README.md").read_text()
    assert "Licence of the labels: CC-BY-4.0." in card
    assert "Please cite: Somebody et al. 2026" in card
    assert "- 3 tiles: each shares ground with, or lies within the buffer of, a tile of another split." in card
