"""k-center greedy against the definition, written out naively."""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from ml_backend.acquisition import AcquisitionError, diversity, k_center

# Small integers are exact in float32: ties are real ties, and the naive loop must agree pick by pick.
points = st.integers(1, 24).flatmap(lambda n: arrays(np.float32, (n, 3), elements=st.integers(-8, 8)))


def naive(points: np.ndarray, count: int, labelled: np.ndarray, first: int | None) -> list[float]:
    """How far each pick is from what was there before, by the definition."""
    there = list(labelled)
    free = list(range(len(points)))
    distances = []
    while free and len(distances) < count:
        gap = [min((np.linalg.norm(points[i].astype(float) - t) for t in there), default=np.inf) for i in free]
        pick = first if first is not None and not distances else free[int(np.argmax(gap))]
        distances.append(gap[free.index(pick)])
        there.append(points[pick].astype(float))
        free.remove(pick)
    return distances


@given(points, arrays(np.float32, (4, 3), elements=st.integers(-8, 8)), st.integers(1, 30))
def test_every_pick_is_the_farthest_from_labelled_and_picked(candidates, labelled, count):
    picks = k_center(candidates, count, labelled=labelled)
    there = list(labelled.astype(float))
    rest = set(range(len(candidates)))
    for index, distance in zip(picks.indexes, picks.distances, strict=True):
        gaps = cdist(candidates[sorted(rest)], np.array(there)).min(axis=1)
        assert distance == pytest.approx(gaps.max(), abs=2e-2)
        there.append(candidates[index].astype(float))
        rest.remove(int(index))
    assert len(picks.indexes) == min(count, len(candidates))


@given(points, st.integers(1, 30))
def test_no_candidate_is_picked_twice_even_among_duplicates(candidates, count):
    picks = k_center(candidates, count, first=0)
    assert len(set(picks.indexes.tolist())) == min(count, len(candidates))
    assert np.isinf(picks.distances[0])


@given(points)
def test_distances_never_grow_after_the_first(candidates):
    distances = k_center(candidates, len(candidates), first=0).distances
    assert (np.diff(distances[1:]) <= 2e-2).all()


def test_coverage_is_within_twice_the_best():
    generator = np.random.default_rng(5)
    cloud = generator.normal(size=(14, 2)).astype(np.float32)
    count = 3
    picked = k_center(cloud, count, first=0).indexes
    table = cdist(cloud, cloud)
    best = min(table[:, list(centres)].min(axis=1).max() for centres in combinations(range(len(cloud)), count))
    assert table[:, picked].min(axis=1).max() <= 2 * best + 1e-6


def test_agrees_with_the_naive_loop_on_random_points():
    generator = np.random.default_rng(1)
    cloud, labelled = generator.normal(size=(200, 16)), generator.normal(size=(20, 16))
    expected = naive(cloud.astype(np.float32), 30, labelled.astype(np.float32), None)
    np.testing.assert_allclose(k_center(cloud, 30, labelled=labelled).distances, expected, rtol=1e-4)


def test_far_from_the_origin_distances_stay_right():
    """Projected coordinates are in the millions; |x|^2 - 2xc + |c|^2 must not cancel."""
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2) * 64.0 + np.array([-2.5e6, 8e5])
    distances = k_center(grid, 4, first=0).distances
    np.testing.assert_allclose(distances[1:3], [np.hypot(448, 448), 448], rtol=1e-3)


def test_blocks_give_the_same_answer_as_one_product(monkeypatch):
    generator = np.random.default_rng(2)
    cloud, labelled = generator.normal(size=(300, 8)), generator.normal(size=(50, 8))
    whole = k_center(cloud, 20, labelled=labelled)
    monkeypatch.setattr(diversity, "BLOCK_BYTES", 4 * 50 * 7)
    blocks = k_center(cloud, 20, labelled=labelled)
    np.testing.assert_array_equal(whole.indexes, blocks.indexes)


def test_memory_does_not_grow_with_the_number_of_labelled_tiles():
    generator = np.random.default_rng(3)
    cloud = generator.normal(size=(20_000, 16)).astype(np.float32)
    labelled = generator.normal(size=(20_000, 16)).astype(np.float32)  # a full table would be 1.6 GB
    tracemalloc.start()
    k_center(cloud, 3, labelled=labelled)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * diversity.BLOCK_BYTES


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: k_center(np.zeros((3, 2)), 1, labelled=np.zeros((1, 3))), "different models"),
        (lambda: k_center(np.full((3, 2), np.nan), 1), "not finite"),
        (lambda: k_center(np.zeros(3), 1), "shape"),
        (lambda: k_center(np.zeros((3, 2)), 1, first=3), "none of the 3"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(call, words):
    with pytest.raises(AcquisitionError, match=words):
        call()


def test_nothing_asked_or_nothing_there_gives_nothing():
    assert len(k_center(np.zeros((3, 2)), 0).indexes) == 0
    assert len(k_center(np.zeros((0, 2)), 5).indexes) == 0
