"""What a release holds is fixed at one moment, and its version says what changed."""

import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from labeling.models import Label, LabelRevision
from labeling.selectors import count_labelled
from labeling.services.imports import withdraw_import
from tests.releases.site import COL, PERIOD, ROW, Site, annotate, modality, tiles, write_raster
from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion
from thawloop.catalog.models import Tile
from thawloop.catalog.services import create_tiles, define_modality, define_region, register_scene, split_region
from thawloop.core.errors import Conflict
from thawloop.core.models import AuditEntry
from thawloop.releases.definition import define
from thawloop.releases.errors import ReleaseRefused
from thawloop.releases.membership import current_members
from thawloop.releases.models import Release
from thawloop.releases.separation import NEAR
from thawloop.releases.services import freeze, freeze_release, import_labels
from thawloop.releases.splits import neighbours
from thawloop.releases.versions import Members, next_version

Write = Callable[..., Path]
TRIANGLE = [[(5.0, 5.0), (40.0, 5.0), (5.0, 40.0)]]
SMALLER = [[(5.0, 5.0), (30.0, 5.0), (5.0, 30.0)]]


@pytest.fixture
def labelled(campaign: Campaign, site: Site, label_file: Write) -> Campaign:
    """Test tiles covered by an import with two labels; one train tile annotated."""
    import_labels(campaign, label_file(site.square(5, 0), site.square(6, 2)), splits=["test"], coverage="regions")
    annotate(campaign, tiles(campaign, "train")[0], TRIANGLE)
    return campaign


def test_release_holds_labelled_tiles_and_their_labels(labelled: Campaign) -> None:
    release = freeze_release(labelled, notes="first")

    assert (release.version, release.state, release.parent) == ("1.0.0", "frozen", None)
    assert release.counts == {
        "tiles": {"train": 1, "val": 0, "test": 6},
        "labels": {"train": 1, "val": 0, "test": 2},
        "left_out": {"tiles": {}, "labels": {}, "parts": {}},
    }
    assert release.release_labels.count() == 3
    assert {row.split: bool(row.annotation_id) for row in release.release_tiles.all()} == {"train": True, "test": False}
    assert release.definition["classes"] == ["RTS"]
    assert [item["name"] for item in release.definition["modalities"]] == ["rgb", "dem"]
    assert {scene["licence"] for scene in release.definition["provenance"]["scenes"]} == {"CC0"}
    assert AuditEntry.objects.get(action="releases.freeze").reason == "first"


def test_what_is_labelled_while_a_release_is_frozen_is_newer_than_it(
    labelled: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def and_meanwhile(*asked: object) -> object:
        found = current_members(*asked)
        annotate(labelled, tiles(labelled, "train")[1], TRIANGLE)
        return found

    monkeypatch.setattr(freeze, "current_members", and_meanwhile)
    release = freeze_release(labelled)
    assert release.counts["tiles"]["train"] == 1
    assert count_labelled(labelled, release.created) == ({"train": 2, "test": 6}, 1)


def test_tiles_are_compared_with_imports_once(labelled: Campaign) -> None:
    definition = define(labelled)
    with CaptureQueriesContext(connection) as queries:
        current_members(labelled, definition)
    assert len([query for query in queries if '"labeling_labelimport"."coverage"' in query["sql"]]) == 1


def test_nothing_new_is_the_same_release(labelled: Campaign) -> None:
    release = freeze_release(labelled)

    assert freeze_release(labelled) == release
    with pytest.raises(Conflict, match=r"Nothing was labelled or edited since release site 1.0.0"):
        freeze_release(labelled, allow_unchanged=False)
    assert Release.objects.count() == 1


def test_versions_tell_new_sources_from_rows_from_edits(labelled: Campaign, site: Site, label_file: Write) -> None:
    first, second, *_ = tiles(labelled, "train")
    freeze_release(labelled)

    annotate(labelled, first, SMALLER, number=2)
    assert freeze_release(labelled).version == "1.0.1"
    annotate(labelled, second)
    assert freeze_release(labelled).version == "1.1.0"
    import_labels(labelled, label_file(site.square(3, 2), name="b.geojson"), coverage=site.block(3, 2, 1, 1))
    latest = freeze_release(labelled)
    assert latest.version == "2.0.0"
    assert latest.parent.version == latest.definition["provenance"]["parent"] == "1.1.0"
    assert Release.objects.get(version="1.0.0").definition["provenance"]["parent"] is None


def test_sources_are_the_files_that_gave_a_label_or_cover_a_tile(
    labelled: Campaign, site: Site, label_file: Write
) -> None:
    again, elsewhere = site.square(5, 0), site.square(3, 2)
    taken_back = import_labels(
        labelled, label_file((again, {"n": 1}), name="taken-back.geojson"), coverage=site.block(2, 0, 1, 1)
    )
    withdraw_import(taken_back, reason="wrong")
    import_labels(labelled, label_file(again, name="empty.geojson"), coverage=site.block(1, 0, 1, 1))
    import_labels(labelled, label_file(elsewhere, name="unused.geojson"))
    other = Campaign.objects.create(name="other", title="Other", grid=labelled.grid, **PERIOD)
    other.classes.set(labelled.classes.all())
    CampaignRegion.objects.create(campaign=other, region=tiles(labelled, "train")[0].region, split="train")
    import_labels(other, label_file(elsewhere, name="other.geojson"), coverage="regions")

    provenance = freeze_release(labelled).definition["provenance"]

    assert [row["file"] for row in provenance["imports"]] == ["labels.geojson", "empty.geojson"]
    files = [f"import:{row['checksum']}" for row in provenance["imports"]]
    assert provenance["sources"] == ["annotations", *sorted(files)]


def test_definition_names_what_is_learnt_from_and_the_scenes_it_is_read_from(
    campaign: Campaign, data_root: Path
) -> None:
    rgb, dem = modality("rgb"), modality("dem")
    far = Site(origin=(COL + 100, ROW))
    for name, site, width, acquired in (
        ("far", far, 2, date(2021, 7, 1)),
        ("late", Site(), 3, date(2022, 7, 1)),
        ("early", Site(), 4, date(2021, 6, 15)),
    ):
        write_raster(data_root / f"{name}.tif", 3, col=0, row=0, cols=width, rows=1, site=site)
        register_scene(str(data_root / f"{name}.tif"), modality=rgb, acquired=acquired)
    slope = define_modality("slope", bands=["slope"], range_min=0, range_max=90, derivation="slope", source=dem)
    index = define_modality(
        "index", bands=["i"], range_min=-1, range_max=1, derivation="expression", expression="rgb.red - rgb.green"
    )
    campaign.campaign_modalities.update(is_model_input=False, position=9)
    for position, item in enumerate((index, slope), 2):
        CampaignModality.objects.create(campaign=campaign, modality=item, position=position)

    found = define(campaign)

    assert [(item["name"], item["anchor"], item["derivation"]) for item in found["modalities"]] == [
        ("rgb", True, ""),
        ("index", False, "rgb.red - rgb.green"),
        ("slope", False, "slope"),
    ]
    scenes = [(scene["modality"], scene["file"]) for scene in found["provenance"]["scenes"]]
    assert scenes == [("dem", "dem.tif"), ("rgb", "early.tif"), ("rgb", "rgb.tif")]


def test_edit_after_freezing_leaves_the_release_alone(labelled: Campaign) -> None:
    release = freeze_release(labelled)
    held = set(release.release_labels.values_list("revision", flat=True))

    annotate(labelled, tiles(labelled, "train")[0], number=2)

    assert LabelRevision.objects.filter(state="retired").count() == 1
    assert set(release.release_labels.values_list("revision", flat=True)) == held


def test_annotator_overrules_imports_on_a_tile(labelled: Campaign, site: Site, label_file: Write) -> None:
    # The same slump in a file and drawn by hand: it is taught once, as drawn.
    import_labels(labelled, label_file(site.square(0, 0), name="train.geojson"), splits=["train"])

    release = freeze_release(labelled)

    assert release.counts["labels"]["train"] == 1
    origins = Label.objects.filter(revisions__releaselabel__release=release, tile__isnull=False)
    assert origins.get().origin.startswith("ls:")


@pytest.mark.parametrize("split", ["train", "test"])
def test_release_without_train_or_test_is_refused(
    campaign: Campaign, site: Site, label_file: Write, split: str
) -> None:
    other = "test" if split == "train" else "train"
    square = site.square(5, 0) if other == "test" else site.square(0, 0)
    import_labels(campaign, label_file(square), splits=[other], coverage="regions")

    with pytest.raises(ReleaseRefused, match=f"no labelled tile in its {split} regions.*import_labels FILE"):
        freeze_release(campaign)
    assert not Release.objects.exists()


def test_train_tiles_that_share_ground_with_test_tiles_are_left_out(
    db: None, make_campaign: Callable[..., Campaign], label_file: Write
) -> None:
    campaign = make_campaign(overlap=32)
    site = Site(overlap=32)
    import_labels(campaign, label_file(site.square(0, 0), site.square(6, 0)), coverage=site.block(0, 0, 9, 3))

    release = freeze_release(campaign)

    held = {row.split: set() for row in release.release_tiles.all()}
    for row in release.release_tiles.select_related("tile__grid"):
        held[row.split].add((row.tile.col, row.tile.row))
    step, side = site.step, 64 * 3.0
    ground = {
        split: [box(c * step, r * step, c * step + side, r * step + side) for c, r in cells]
        for split, cells in held.items()
    }
    assert all(a.intersection(b).area == 0 for a in ground["train"] for b in ground["test"])
    (keys,) = release.definition["provenance"]["left_out"]["tiles"].values()
    assert release.counts["left_out"]["tiles"] == {NEAR: len(keys)}


def test_train_tiles_that_share_ground_with_test_tiles_nobody_labelled_yet_are_left_out(
    db: None, make_campaign: Callable[..., Campaign]
) -> None:
    campaign = make_campaign(overlap=32)
    train, test = tiles(campaign, "train"), tiles(campaign, "test")
    for tile in (train[0], train[-1], test[-1]):
        annotate(campaign, tile, TRIANGLE)
    assert train[-1].col + 1 == test[0].col < test[-1].col

    release = freeze_release(campaign)

    assert {row.tile for row in release.release_tiles.all()} == {train[0], test[-1]}
    assert release.definition["provenance"]["left_out"]["tiles"] == {NEAR: [train[-1].key]}


def test_regions_of_a_split_cover_their_own_tiles(campaign: Campaign, site: Site, label_file: Write) -> None:
    grid = campaign.grid
    CampaignRegion.objects.filter(campaign=campaign).delete()
    Tile.objects.filter(grid=grid).delete()
    study = define_region("study", site.block(0, 0, 8, 8, margin=30))
    for split, part in split_region(study, grid, block_tiles=2, seed=1).items():
        CampaignRegion.objects.create(campaign=campaign, region=part, split=split)
        create_tiles(grid, part, **PERIOD)
    path = label_file(*(site.square(col, row) for col in range(8) for row in range(8)))
    import_labels(campaign, path, coverage="regions")

    release = freeze_release(campaign)

    assert sum(release.counts["tiles"].values()) == 64
    assert release.counts["labels"] == release.counts["tiles"]


@given(
    cells=st.sets(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), max_size=12),
    test=st.sets(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), max_size=6),
    overlap=st.integers(0, 31),
)
def test_overlap_by_whole_numbers_is_overlap_of_squares(
    cells: set[tuple[int, int]], test: set[tuple[int, int]], overlap: int
) -> None:
    step = 32 - overlap
    squares = [box(c * step, r * step, c * step + 32, r * step + 32) for c, r in test]
    expected = {
        (c, r)
        for c, r in cells
        if any(box(c * step, r * step, c * step + 32, r * step + 32).intersection(s).area > 0 for s in squares)
    }
    assert neighbours(cells, test, tile_size=32, overlap=overlap) == expected


def members(tiles: dict[int, tuple[str, int | None]], labels: dict[str, int], *sources: str) -> Members:
    return Members(tiles, labels, frozenset(sources), "shape")


@pytest.mark.parametrize(
    ("after", "version"),
    [
        (members({1: ("train", 1)}, {"a": 2}, "annotations"), "2.3.5"),
        (members({1: ("test", 1)}, {"a": 1}, "annotations"), "2.3.5"),
        (members({1: ("train", 1), 2: ("train", 2)}, {"a": 1}, "annotations"), "2.4.0"),
        (members({1: ("train", 1)}, {}, "annotations"), "2.4.0"),
        (members({1: ("train", 1)}, {"b": 9}, "annotations"), "2.4.0"),
        (members({1: ("train", 1)}, {"a": 1}, "annotations", "import:x"), "3.0.0"),
    ],
)
def test_next_version(after: Members, version: str) -> None:
    assert next_version("2.3.4", members({1: ("train", 1)}, {"a": 1}, "annotations"), after) == version


@pytest.mark.django_db(transaction=True)
def test_members_are_seen_at_one_moment(
    make_campaign: Callable[..., Campaign], site: Site, label_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is submitted between the query for tiles and the one for labels is in neither."""
    from thawloop.releases import membership

    campaign = make_campaign()
    import_labels(campaign, label_file(site.square(0, 0), site.square(5, 0)), coverage=site.block(0, 0, 9, 3))
    original = membership._revisions_on
    late, redrawn, *_ = tiles(campaign, "train")
    annotate(campaign, redrawn, TRIANGLE)

    def submitted_meanwhile() -> None:
        try:
            annotate(campaign, late, TRIANGLE, SMALLER)
            annotate(campaign, redrawn, SMALLER, number=2)
        finally:
            connection.close()

    def slow(*args: object) -> object:
        thread = threading.Thread(target=submitted_meanwhile)
        thread.start()
        thread.join()
        return original(*args)

    monkeypatch.setattr(membership, "_revisions_on", slow)
    release = freeze_release(campaign)

    assert Label.objects.filter(tile=late).count() == 2
    assert release.release_tiles.get(tile=late).annotation is None
    assert not release.release_labels.filter(revision__label__tile=late).exists()
    assert release.counts["labels"] == {"train": 2, "val": 0, "test": 1}
    assert LabelRevision.objects.filter(label__tile=redrawn).count() == 2
    assert release.release_labels.get(revision__label__tile=redrawn).revision.number == 1


@pytest.mark.django_db(transaction=True)
def test_freezing_inside_another_transaction_is_a_programming_error(make_campaign: Callable[..., Campaign]) -> None:
    campaign = make_campaign()
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        freeze_release(campaign)
