"""Tiles of a grid over a region."""

from datetime import date

import numpy as np
import pytest
import shapely
from shapely.geometry import Point, box

from tests.catalog.periods import YEAR
from thawloop.catalog.errors import TilesRefused
from thawloop.catalog.geometry import project, tile_bounds, to_shapely
from thawloop.catalog.models import Tile
from thawloop.catalog.services import create_tiles, define_grid, define_region
from thawloop.core.models import AuditEntry

pytestmark = pytest.mark.django_db


def test_tiles_are_the_cells_whose_centre_the_region_holds(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 505_000, 7_603_000)

    made = create_tiles(grid, region, **YEAR)

    expected = {
        (col, row)
        for col in range(770, 800)
        for row in range(11_860, 11_890)
        if 500_000 <= col * 640 + 320 <= 505_000 and 7_600_000 <= row * 640 + 320 <= 7_603_000
    }
    assert made == len(expected) > 0
    assert set(Tile.objects.values_list("col", "row")) == expected
    tile = Tile.objects.order_by("row", "col").first()
    assert tile.key == f"utm_2021_c{tile.col}_r{tile.row}"
    assert tile.region == region


def test_footprints_are_the_cells_on_the_globe(grid, make_region):
    create_tiles(grid, make_region("r", 500_000, 7_600_000, 502_000, 7_602_000), **YEAR)

    for tile in Tile.objects.select_related("grid"):
        cell = project(shapely.segmentize(box(*tile_bounds(tile)), 10), 32608, 4326)
        footprint = to_shapely(tile.geometry)
        assert footprint.symmetric_difference(cell).area < 1e-5 * cell.area


def test_doing_it_again_adds_only_what_is_new(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 505_000, 7_603_000)
    assert create_tiles(grid, region, **YEAR) > 0
    assert create_tiles(grid, region, **YEAR) == 0
    assert AuditEntry.objects.filter(action="catalog.create_tiles").count() == 1


def test_another_period_has_its_own_tiles(grid, make_region):
    region = make_region("r", 500_000, 7_600_000, 505_000, 7_603_000)
    first = create_tiles(grid, region, **YEAR)
    later = {"period": "2022", "period_start": date(2022, 1, 1), "period_end": date(2022, 12, 31)}
    assert create_tiles(grid, region, **later) == first
    assert Tile.objects.count() == 2 * first


def test_overlapping_tiles_share_pixels(make_region):
    grid = define_grid("overlapping", 32608, 10, 64, 16)
    create_tiles(grid, make_region("r", 500_000, 7_600_000, 503_000, 7_602_000), **YEAR)

    tiles = {(t.col, t.row): tile_bounds(t) for t in Tile.objects.select_related("grid")}
    (col, row), bounds = next(iter(tiles.items()))
    neighbour = tiles[col + 1, row]
    assert bounds[2] - neighbour[0] == 160


def test_only_tiles_with_a_scene_are_made_when_asked(grid, make_region, make_scene):
    region = make_region("r", 499_000, 7_590_000, 510_000, 7_601_000)
    scene = make_scene(np.ones((200, 200), np.uint8))  # 2 km square from (500000, 7600000) to the south-east

    made = create_tiles(grid, region, **YEAR, min_coverage_by=scene.modality)

    square = box(500_000, 7_598_000, 502_000, 7_600_000)
    everywhere = [(c, r) for c in range(770, 810) for r in range(11_850, 11_890)]
    touching = [
        (c, r) for c, r in everywhere
        if box(c * 640, r * 640, c * 640 + 640, r * 640 + 640).intersection(square).area > 0
    ]  # fmt: skip
    assert made == len(touching)


def test_a_neighbour_that_only_touches_the_scene_is_not_covered(make_region, make_scene):
    grid = define_grid("exact", 32608, 10, 50)
    scene = make_scene(np.ones((100, 100), np.uint8))  # exactly 2 x 2 cells
    region = make_region("r", 499_000, 7_597_000, 503_000, 7_602_000)

    assert create_tiles(grid, region, **YEAR, min_coverage_by=scene.modality) == 4


def test_scenes_of_other_years_cover_only_if_static(grid, make_region, make_scene, make_modality):
    region = make_region("r", 499_000, 7_598_000, 503_000, 7_601_000)
    optical = make_modality("optical", ("a",))
    dem = make_modality("dem", ("a",), is_static=True)
    for modality in (optical, dem):
        make_scene(np.ones((200, 200), np.uint8), modality=modality, acquired=date(2015, 1, 1), name=f"{modality}.tif")

    assert create_tiles(grid, region, **YEAR, min_coverage_by=optical) == 0
    assert create_tiles(grid, region, **YEAR, min_coverage_by=dem) > 0


def test_a_derived_modality_covers_where_all_its_inputs_do(grid, make_region, make_scene, make_modality):
    from thawloop.catalog.services import ensure_builtin

    region = make_region("r", 499_000, 7_598_000, 503_000, 7_601_000)
    make_scene(np.ones((3, 200, 200), np.uint8), modality=make_modality())
    ndvi = ensure_builtin("ndvi")

    assert create_tiles(grid, region, **YEAR, min_coverage_by=ndvi) == 0


def test_tiles_across_the_antimeridian_are_split_there_and_stay_whole_elsewhere():
    # Wrangel Island lies on the antimeridian.
    grid = define_grid("polar", 3413, 10, 512)
    region = define_region("wrangel", box(178, 70.7, 182, 71.7))

    made = create_tiles(grid, region, **YEAR)

    shapes = [to_shapely(geometry) for geometry in Tile.objects.values_list("geometry", flat=True)]
    area = shapely.area([project(shape, 4326, 3413) for shape in shapes])
    split = [shape for shape in shapes if shape.geom_type == "MultiPolygon"]
    assert made == len(shapes) > 500
    assert 10 < len(split) < 60
    assert all(shape.bounds[0] >= -180 and shape.bounds[2] <= 180 for shape in shapes)
    # A tile's sides are straight on the plane only: a densified outline loses a little.
    np.testing.assert_allclose(area, (512 * 10) ** 2, rtol=1e-3)
    assert any(shape.intersects(Point(-179, 71.2)) for shape in shapes)
    assert any(shape.intersects(Point(179, 71.2)) for shape in shapes)


def test_a_region_split_at_the_antimeridian_leaves_no_gap_and_no_double():
    grid = define_grid("polar", 3413, 10, 512)
    create_tiles(grid, define_region("wrangel", box(178, 70.7, 182, 71.7)), **YEAR)

    cells = set(Tile.objects.values_list("col", "row"))
    holes = [(c, r) for c, r in cells if (c + 2, r) in cells and (c + 1, r) not in cells]
    assert holes == []


def test_the_cell_around_the_pole_is_left_out():
    grid = define_grid("polar", 3413, 1000, 500)
    made = create_tiles(grid, define_region("top", box(-180, 80, 180, 90)), **YEAR)

    around = {(0, 0), (-1, 0), (0, -1), (-1, -1)}  # the pole is a corner of four cells
    assert made > 0
    assert not around & set(Tile.objects.values_list("col", "row"))


def test_too_many_tiles_are_refused_with_their_number():
    grid = define_grid("fine", 3413, 1, 32)
    region = define_region("siberia", box(80, 68, 120, 74))
    with pytest.raises(TilesRefused, match=r"holds about [\d,]{9,} cells of grid `fine`"):
        create_tiles(grid, region, **YEAR)


def test_cells_of_another_region_are_not_taken_silently(grid, make_region):
    create_tiles(grid, make_region("a", 500_000, 7_600_000, 505_000, 7_603_000), **YEAR)
    with pytest.raises(TilesRefused, match=r"cells of region `b` already are tiles of region `a`"):
        create_tiles(grid, make_region("b", 504_000, 7_600_000, 509_000, 7_603_000), **YEAR)
    assert not Tile.objects.filter(region__name="b").exists()


@pytest.mark.parametrize(
    ("period", "said"),
    [
        ({"period": "Summer 2021"}, "lower-case"),
        ({"period": "x" * 30}, "20 characters"),
        ({"period_start": date(2022, 1, 1)}, "before it begins"),
    ],
)
def test_bad_periods_are_refused(grid, make_region, period, said):
    with pytest.raises(TilesRefused, match=said):
        create_tiles(grid, make_region("r", 500_000, 7_600_000, 505_000, 7_603_000), **{**YEAR, **period})


def test_a_period_means_the_same_dates_throughout_a_grid(grid, make_region):
    create_tiles(grid, make_region("a", 500_000, 7_600_000, 505_000, 7_603_000), **YEAR)
    with pytest.raises(TilesRefused, match="2021-12-31"):
        create_tiles(
            grid, make_region("b", 600_000, 7_600_000, 605_000, 7_603_000), **{**YEAR, "period_end": date(2021, 6, 1)}
        )
