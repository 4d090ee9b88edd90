"""Simulated annotators' eyes and hands: geometry in, geometry out."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import Point, Polygon

from demo.hands import Habits, Outline, clipped, correct, draw, miss_chance

SIZE = 128
PERFECT = Habits(wobble=0.0, miss_small=0.0, miss_large=0.0, accept_false=0.0, nudge=0.0)


def disc(x, y, radius, region="", holes=()):
    shape = Point(x, y).buffer(radius)
    for hole in holes:
        shape = shape.difference(hole)
    return Outline(region, "RTS", shape)


def iou(first, second):
    return first.intersection(second).area / first.union(second).area


@given(
    seed=st.integers(0, 10_000),
    radius=st.floats(3, 40),
    x=st.floats(-10, SIZE + 10),
    y=st.floats(-10, SIZE + 10),
    wobble=st.floats(0, 2.5),
)
def test_what_is_drawn_is_valid_and_inside_the_tile(seed, radius, x, y, wobble):
    drawn = draw(Point(x, y).buffer(radius), Habits(wobble=wobble), SIZE, np.random.default_rng(seed))
    if drawn is not None:
        assert drawn.is_valid
        assert shapely.box(0, 0, SIZE, SIZE).buffer(1e-6).contains(drawn)
        assert drawn.area >= 12


@pytest.mark.parametrize("wobble", [0.5, 1.0, 2.0])
def test_wobble_moves_the_outline_by_about_so_many_pixels(wobble):
    shape = Point(64, 64).buffer(40)
    drawn = draw(shape, Habits(wobble=wobble), SIZE, np.random.default_rng(1))
    distance = shapely.distance(shape.exterior, shapely.points(shapely.get_coordinates(drawn)))
    assert 0.5 * wobble < np.sqrt(np.mean(distance**2)) < 1.6 * wobble


def test_a_generous_person_draws_larger_outlines():
    shape = Point(64, 64).buffer(20)
    rng = np.random.default_rng(2)
    areas = [draw(shape, Habits(wobble=0.5, generosity=g), SIZE, rng).area for g in (-1.5, 0, 1.5)]
    assert areas[0] < areas[1] < areas[2]


def test_holes_are_kept_as_holes():
    shape = Point(64, 64).buffer(30).difference(Point(64, 64).buffer(8))
    drawn = draw(shape, Habits(wobble=0.5), SIZE, np.random.default_rng(3))
    assert len(drawn.interiors) == 1
    assert iou(drawn, shape) > 0.85


def test_perfect_person_turns_anything_into_the_truth():
    truth = [disc(30, 30, 12), disc(90, 80, 20)]
    shown = [disc(34, 30, 12, "moved"), disc(60, 110, 9, "false")]
    made = correct(shown, truth, PERFECT, SIZE, np.random.default_rng(4))
    assert (made.mended, made.added, made.struck_out, made.missed, made.kept) == (1, 1, 1, 0, 0)
    assert [outline.region for outline in made.outlines] == ["moved", ""]
    for outline, real in zip(made.outlines, truth, strict=True):
        assert iou(outline.polygon, real.polygon) > 0.95


def test_good_proposals_are_left_untouched():
    shown = [disc(30.5, 30, 12, "good")]
    made = correct(shown, [disc(30, 30, 12)], PERFECT, SIZE, np.random.default_rng(5))
    assert made.kept == 1
    assert made.outlines[0].is_untouched
    assert made.outlines[0].polygon is shown[0].polygon


def test_small_objects_are_overlooked_more_often_than_large_ones():
    habits = Habits(miss_small=0.4, miss_large=0.05)
    assert miss_chance(15, habits) > miss_chance(200, habits) > miss_chance(2000, habits) >= 0.05
    rng = np.random.default_rng(6)
    missed = {
        radius: sum(correct([], [disc(64, 64, radius)], habits, SIZE, rng).missed for _ in range(300)) / 300
        for radius in (2.5, 30)
    }
    assert missed[2.5] > 3 * missed[30]


def test_the_same_seed_draws_the_same_lines():
    scene = [disc(30, 30, 12), disc(90, 80, 20)], [disc(33, 30, 11, "a")]
    first, second = (correct(scene[1], scene[0], Habits(), SIZE, np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_slivers_at_the_edge_are_not_drawn():
    assert clipped(shapely.box(-10, 0, 1, 5), SIZE) is None
    assert clipped(Polygon([(0, 0), (10, 0), (10, 10), (0, 10)]), SIZE).area == 100


@given(seed=st.integers(0, 1000), count=st.integers(0, 5))
def test_every_object_is_accounted_for(seed, count):
    rng = np.random.default_rng(seed)
    truth = [disc(20 + 22 * n, 40, 8) for n in range(count)]
    shown = [disc(20 + 22 * n + rng.normal(0, 3), 40, 8, f"r{n}") for n in range(count) if rng.random() < 0.6]
    made = correct(shown, truth, Habits(), SIZE, rng)
    regions = [outline.region for outline in made.outlines if outline.region]
    assert len(set(regions)) == len(regions)
    assert made.kept + made.mended + made.added == len(made.outlines)
    assert made.kept + made.mended + made.struck_out >= len(shown)
    assert made.kept + made.mended + made.added + made.missed >= len(truth)
