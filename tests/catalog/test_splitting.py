"""Spatially separate train, validation and test parts."""

import pytest
import shapely
from shapely.geometry import Point

from tests.catalog.periods import YEAR
from thawloop.catalog.errors import AlreadyDefined, DefinitionRefused
from thawloop.catalog.geometry import project, tile_bounds, to_shapely
from thawloop.catalog.models import Region, Tile
from thawloop.catalog.services import create_tiles, define_grid, split_region
from thawloop.core.models import AuditEntry

pytestmark = pytest.mark.django_db


def tiles_by_split(grid, parts):
    for part in parts.values():
        create_tiles(grid, part, **YEAR)
    return {
        split: [shapely.box(*tile_bounds(tile)) for tile in Tile.objects.filter(region=part).select_related("grid")]
        for split, part in parts.items()
    }


def test_every_tile_of_the_region_is_in_exactly_one_part(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 520_000, 7_620_000)
    whole = create_tiles(grid, region, **YEAR)
    Tile.objects.all().delete()

    tiles = tiles_by_split(grid, split_region(region, grid))

    assert sum(map(len, tiles.values())) == whole
    assert AuditEntry.objects.filter(action="catalog.split_region").count() == len(tiles)


def test_parts_have_about_their_share_and_do_not_overlap(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 530_000, 7_630_000)

    parts = split_region(region, grid, block_tiles=2)
    tiles = tiles_by_split(grid, parts)

    total = sum(map(len, tiles.values()))
    assert len(tiles["train"]) / total == pytest.approx(0.6, abs=0.05)
    assert len(tiles["val"]) / total == pytest.approx(0.15, abs=0.05)
    assert len(tiles["test"]) / total == pytest.approx(0.25, abs=0.05)
    train, test = shapely.union_all(tiles["train"]), shapely.union_all(tiles["test"])
    assert train.intersection(test).area == 0
    assert {part.parent for part in parts.values()} == {region}


def test_neighbouring_tiles_mostly_stay_together(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 530_000, 7_630_000)
    tiles = tiles_by_split(grid, split_region(region, grid, block_tiles=4))

    parts = shapely.union_all(tiles["test"])
    largest = max(shapely.get_parts(parts), key=lambda part: part.area)
    assert largest.area >= 8 * 640**2


def test_the_seed_decides_and_the_same_seed_decides_the_same(grid, make_region):
    a = make_region("a", 500_000, 7_600_000, 530_000, 7_630_000)
    b = make_region("b", 500_000, 7_600_000, 530_000, 7_630_000)
    c = make_region("c", 500_000, 7_600_000, 530_000, 7_630_000)

    first, same = split_region(a, grid, seed=1), split_region(b, grid, seed=1)
    other = split_region(c, grid, seed=2)

    assert split_region(a, grid, seed=1) == first
    assert to_shapely(first["test"].geometry).equals(to_shapely(same["test"].geometry))
    assert not to_shapely(first["test"].geometry).equals(to_shapely(other["test"].geometry))
    with pytest.raises(AlreadyDefined, match="a-train"):
        split_region(a, grid, seed=2)


def test_labels_are_shared_out_too(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 512_000, 7_612_000)
    swarm = [Point(501_000 + 700 * i, 7_601_000 + 300 * i) for i in range(12)]  # one corner of the region
    labels = [project(point, 32608, 4326) for point in swarm]

    parts = split_region(region, grid, weights=labels)

    held = {split: sum(to_shapely(part.geometry).covers(p) for p in labels) for split, part in parts.items()}
    assert sum(held.values()) == 12
    assert all(held.values())


def test_a_tiny_region_gives_every_split_a_tile(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 502_600, 7_602_600)
    tiles = tiles_by_split(grid, split_region(region, grid))
    assert all(tiles.values())


def test_a_region_of_fewer_tiles_than_splits_is_refused(grid, make_region):
    with pytest.raises(DefinitionRefused, match=r"the centres of \d tiles .* too few for 3 splits"):
        split_region(make_region("r", 500_000, 7_600_000, 500_700, 7_600_700), grid)
    assert Region.objects.count() == 1


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}])
def test_shares_must_be_positive_and_sum_to_one(grid, make_region, fractions):
    with pytest.raises(DefinitionRefused, match="sum to 1"):
        split_region(make_region("r", 500_000, 7_600_000, 512_000, 7_612_000), grid, fractions=fractions)


def test_splits_work_where_longitude_jumps(db):
    from thawloop.catalog.services import define_region

    grid = define_grid("polar", 3413, 10, 512)
    region = define_region("wrangel", shapely.box(178, 70.7, 182, 71.7))
    whole = create_tiles(grid, region, **YEAR)
    Tile.objects.all().delete()

    tiles = tiles_by_split(grid, split_region(region, grid))
    assert sum(map(len, tiles.values())) == whole


def test_with_overlap_every_tile_still_has_one_part(make_region):
    grid = define_grid("overlapping", 32608, 10, 64, 16)
    region = make_region("r", 500_000, 7_600_000, 512_000, 7_612_000)
    whole = create_tiles(grid, region, **YEAR)
    Tile.objects.all().delete()

    tiles = tiles_by_split(grid, split_region(region, grid))
    assert sum(map(len, tiles.values())) == whole
