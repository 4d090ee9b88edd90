"""Shapes to Label Studio results and back."""

import math

import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shapely.geometry import MultiPolygon, Polygon

from labeling.labelstudio.regions import MAX_REGIONS, ShownInstance, iou, mask_geometry, read_result, write_result
from labeling.labelstudio.rle import decode_mask, encode_mask

SIZE = 128
CLASSES = {"RTS", "Lake"}
SQUARE = [[10, 10], [40, 10], [40, 40], [10, 40]]
HOLE = [[20, 20], [30, 20], [30, 30], [20, 30]]


def write(*instances, picture_size=SIZE):
    return write_result(instances, tile_size=SIZE, picture="picture_rgb", picture_size=picture_size)


def read(result):
    return read_result(result, tile_size=SIZE, classes=CLASSES)


def polygon_region(points, label="RTS", **changes):
    value = {"points": points, "closed": True, "polygonlabels": [label]}
    return {"id": "a", "type": "polygonlabels", "from_name": "polygons", "value": value} | changes


def brush_region(mask, label="RTS brush", **changes):
    height, width = mask.shape
    value = {"format": "rle", "rle": encode_mask(mask), "brushlabels": [label]}
    region = {"id": "b", "type": "brushlabels", "from_name": "brush", "value": value}
    return region | {"original_height": height, "original_width": width} | changes


def verdict_region(*choices, from_name="verdict"):
    return {"id": "v", "type": "choices", "from_name": from_name, "value": {"choices": list(choices)}}


@st.composite
def star_polygons(draw):
    """Valid polygons around a point of the tile, convex or not."""
    count = draw(st.integers(3, 30))
    radii = draw(st.lists(st.floats(4, 60), min_size=count, max_size=count))
    turn = draw(st.floats(0, 6.28))
    angles = [turn + 2 * math.pi * number / count for number in range(count)]
    return [[64 + r * math.cos(a), 64 + r * math.sin(a)] for r, a in zip(radii, angles, strict=True)]


@given(star_polygons())
def test_a_polygon_comes_back_as_it_was(points):
    reading = read(write(ShownInstance("r1", "RTS", [points], 0.7)))
    assert reading.problems == []
    (shape,) = reading.shapes
    assert (shape.region, shape.class_name) == ("r1", "RTS")
    assert shapely.hausdorff_distance(shape.geometry, Polygon(points)) < 1e-5
    assert shape.geometry.is_valid


@pytest.mark.parametrize(
    ("score", "written"), [(0.123456, {"score": 0.1235}), (None, {}), (float("nan"), {}), (float("inf"), {})]
)
def test_a_score_is_written_to_four_places_and_left_out_where_it_is_no_number(score, written):
    (region,) = write(ShownInstance("r1", "RTS", [SQUARE], score))
    assert {name: value for name, value in region.items() if name == "score"} == written


@given(hnp.arrays(bool, (24, 24)))
def test_a_mask_becomes_polygons_that_cover_exactly_its_pixels(mask):
    geometry = mask_geometry(mask, Affine.identity())
    assert geometry.is_valid
    assert geometry.area == mask.sum()
    again = rasterio.features.rasterize([geometry], out_shape=mask.shape).astype(bool) if mask.any() else mask
    assert np.array_equal(again, mask)


@settings(deadline=None)
@given(hnp.arrays(bool, (16, 16)), st.sampled_from([16, 32, 64]))
def test_a_drawn_mask_keeps_its_area_whatever_the_pictures_size(blocks, size):
    mask = np.kron(blocks, np.ones((size // 16, size // 16), bool))
    reading = read([brush_region(mask)])
    assert (reading.union.area if reading.shapes else 0) == blocks.sum() * (SIZE / 16) ** 2


def test_an_instance_with_a_hole_becomes_a_brush_mask_with_that_hole():
    (region,) = write(ShownInstance("r1", "RTS", [SQUARE, HOLE], 0.7), picture_size=256)
    assert region["type"] == "brushlabels"
    assert (region["original_width"], region["original_height"]) == (256, 256)
    mask = decode_mask(region["value"]["rle"], 256, 256)
    assert mask.sum() == 4 * (30 * 30 - 10 * 10)
    (shape,) = read([region]).shapes
    assert shape.geometry.equals(MultiPolygon([Polygon(SQUARE, [HOLE])]))


def test_a_brush_of_two_blots_is_one_shape_of_two_parts():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[5:15, 5:15] = mask[50:60, 50:60] = True
    (shape,) = read([brush_region(mask)]).shapes
    assert len(shape.geometry.geoms) == 2


def test_specks_of_a_brush_are_left_out():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[5:15, 5:15] = mask[50, 50] = True
    reading = read([brush_region(mask)])
    assert reading.mended == ["Region 1 (b): 1 specks smaller than 2 pixels were left out."]
    (shape,) = reading.labels
    assert len(shape.geometry.geoms) == 1


def test_what_reaches_beyond_the_tile_is_cut_off():
    reading = read([polygon_region([[-20, -20], [50, -20], [50, 50], [-20, 50]])])
    assert reading.problems == []
    assert reading.mended == ["Region 1 (a): what of it lay outside the tile was cut off."]
    assert reading.labels[0].geometry.bounds == (0, 0, SIZE / 2, SIZE / 2)


def test_a_small_crossing_is_repaired():
    points = [[10, 10], [60, 10], [60, 60], [10, 60], [10, 9.5], [10.5, 9.8]]
    reading = read([polygon_region(points)])
    assert reading.problems == []
    assert reading.mended[0] == "Region 1 (a): a small crossing of its outline was resolved."
    assert reading.labels[0].geometry.is_valid


def test_an_outline_that_was_left_open_is_closed():
    region = polygon_region([[10, 10], [60, 10], [60, 60]])
    region["value"]["closed"] = False
    reading = read([region])
    assert reading.problems == []
    assert reading.mended == ["Region 1 (a): its outline was left open and has been closed."]
    assert len(reading.labels) == 1


@pytest.mark.parametrize(
    ("region", "problem"),
    [
        (polygon_region([[10, 10], [60, 60], [60, 10], [10, 60]]), "crosses itself"),
        (polygon_region([[10, 10], [60, 10]]), "fewer than three points"),
        (polygon_region([[10, 10]] * 4), "larger than 2 pixels"),
        (polygon_region([[10, 10], [10.1, 10], [10.1, 10.1]]), "larger than 2 pixels"),
        (polygon_region([[110, 110], [140, 110], [140, 140]]), "larger than 2 pixels"),
        (polygon_region([[10, 10], [60, 10], [float("nan"), 60]]), "not a point"),
        (polygon_region([[10, 10], [60, 10], [None, 60]]), "not a point"),
        (polygon_region([[10, 10], [60, 10], [1e300, 60]]), "not a point"),
        (polygon_region([[[10, 10], [60, 10], [60, 60]], [[20, 20], [30, 20], [30, 30]]]), "fewer than three points"),
        (polygon_region([[10, 10]] * 30_000), "more than 20,000"),
        (polygon_region([[10, 10], [60, 10], [60, 60]], label="Pingo"), "'Pingo' is not one of the campaign's"),
        (polygon_region([[10, 10], [60, 10], [60, 60]], label="RTS brush"), "not one of the campaign's"),
        (polygon_region([[10, 10], [60, 10], [60, 60]], image_rotation=90), "rotated"),
        (polygon_region([[10, 10], [60, 10], [60, 60]], type="rectanglelabels"), "unknown kind 'rectanglelabels'"),
        (polygon_region([[10, 10], [60, 10], [60, 60]]) | {"value": {"points": [[1, 1], [9, 1], [9, 9]]}}, "no class"),
        (
            polygon_region([[10, 10], [60, 10], [60, 60]])
            | {"value": {"points": [[1, 1], [9, 1], [9, 9]], "polygonlabels": ["RTS", "Lake"]}},
            "several classes",
        ),
        (verdict_region("no pingo in tile"), "'no pingo in tile' is not one of the campaign's"),
        (verdict_region(None), "cannot be read"),
        (verdict_region("uncertain", "bad imagery"), "cannot be read"),
        (verdict_region("uncertain", from_name="mood"), "cannot be read"),
        (brush_region(np.zeros((8, 8), bool)), "larger than 2 pixels"),
        (brush_region(np.ones((8, 8), bool), original_width=9), "cannot be read"),
        (brush_region(np.ones((8, 8), bool), original_width="8"), "no picture size"),
        (brush_region(np.ones((8, 8), bool), original_width=10**9), "cannot be read"),
        ({"foo": 1}, "not a region"),
        ("junk", "not a region"),
        (None, "not a region"),
    ],
)
def test_with_an_unusable_region_nothing_is_said_of_the_tile(region, problem):
    good = polygon_region([[10, 10], [60, 10], [60, 60]], id="good")
    reading = read([region, good])
    assert [shape.region for shape in reading.shapes] == ["good"]
    assert not reading.makes_statement
    assert reading.labels == []
    assert len(reading.problems) == 1
    assert reading.problems[0].startswith("Region 1 (")
    assert problem in reading.problems[0]


def test_too_many_regions_are_cut_off_with_a_problem():
    region = polygon_region([[10, 10], [60, 10], [60, 60]])
    reading = read([region] * (MAX_REGIONS + 5))
    assert len(reading.shapes) == MAX_REGIONS
    assert len({shape.region for shape in reading.shapes}) == MAX_REGIONS
    assert "Only the first" in reading.problems[0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
regions = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "type": st.sampled_from(["polygonlabels", "brushlabels", "choices", "textarea", "x"]),
        "from_name": st.sampled_from(["polygons", "brush", "verdict", "comment"]),
        "original_width": json_values,
        "original_height": json_values,
        "value": st.fixed_dictionaries(
            {},
            optional={
                "points": json_values,
                "rle": json_values | st.lists(st.integers(0, 255), max_size=40),
                "polygonlabels": json_values | st.just(["RTS"]),
                "brushlabels": json_values | st.just(["RTS brush"]),
                "choices": json_values,
                "text": json_values,
            },
        ),
    },
)


@settings(max_examples=400, deadline=None)
@given(st.lists(regions | json_values, max_size=5) | json_values)
def test_no_result_whatsoever_raises(result):
    for shape in read(result).shapes:
        assert shape.geometry.is_valid
        assert shape.geometry.area > 0


@pytest.mark.parametrize("says", ["nothing in tile", "no RTS in tile", "uncertain"])
def test_a_verdict_beside_shapes_is_a_contradiction(says):
    triangle = polygon_region([[10, 10], [60, 10], [60, 60]])
    for result in ([triangle, verdict_region(says)], [verdict_region(says), triangle]):
        reading = read(result)
        assert not reading.makes_statement
        assert reading.labels == []
        assert "remove the verdict or the shapes" in reading.problems[0]


def test_two_verdicts_are_a_contradiction_and_the_same_twice_is_none():
    nothing = verdict_region("nothing in tile")
    assert "contradicts" in read([nothing, verdict_region("uncertain")]).problems[0]
    assert read([nothing, nothing]).makes_statement


def test_a_verdict_alone_says_what_it_says():
    assert read([verdict_region("nothing in tile")]).makes_statement
    assert not read([verdict_region("bad imagery")]).makes_statement
    assert read([verdict_region()]).makes_statement  # taken back


def test_an_arrow_between_regions_and_a_comment_say_nothing_of_the_tile():
    arrow = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    comment = {"id": "c", "type": "textarea", "from_name": "comment", "value": {"text": ["old scar"]}}
    reading = read([arrow, comment, polygon_region([[10, 10], [60, 10], [60, 60]])])
    assert (reading.problems, len(reading.labels)) == ([], 1)


def test_intersection_over_union_of_nothing_with_nothing_is_one():
    empty, square = Polygon(), Polygon(SQUARE)
    assert iou(empty, empty) == 1.0
    assert iou(square, empty) == 0.0
    assert iou(square, square) == 1.0


def test_outlines_that_cross_themselves_too_often_cost_no_more_than_a_budget(monkeypatch):
    monkeypatch.setattr("labeling.labelstudio.regions.MAX_REPAIR_SECONDS", 2)
    tangles = np.random.default_rng(0).uniform(0, 100, (40, 5_000, 2)).round(3).tolist()
    square = [[10, 10], [40, 10], [40, 40], [10, 40]]
    result = [
        {"id": f"r{number}", "type": "polygonlabels", "value": {"points": points, "polygonlabels": ["RTS"]}}
        for number, points in enumerate([*tangles, square])
    ]

    reading = read_result(result, tile_size=SIZE, classes=CLASSES)

    assert [shape.region for shape in reading.shapes] == ["r40"]
    assert len(reading.problems) == 40
    assert all("crosses itself too often" in problem for problem in reading.problems)


def test_a_mask_of_noise_is_refused(monkeypatch):
    monkeypatch.setattr("labeling.labelstudio.regions.MAX_MASK_EDGES", 1_000)
    noise = np.random.default_rng(0).random((64, 64)) > 0.5
    value = {"format": "rle", "rle": encode_mask(noise), "brushlabels": ["RTS brush"]}
    region = {"id": "r", "type": "brushlabels", "original_width": 64, "original_height": 64, "value": value}

    reading = read_result([region], tile_size=SIZE, classes=CLASSES)

    assert reading.shapes == []
    assert "made of single pixels all over" in reading.problems[0]
