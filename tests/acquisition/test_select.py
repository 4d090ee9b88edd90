"""Batches: both arms, deterministic, independent of input order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.acquisition import STRATEGIES
from ml_backend.acquisition import AcquisitionError, Candidates, select


def candidates(size: int, *, seed: int = 0, dimensions: int = 6, model: bool = True) -> Candidates:
    generator = np.random.default_rng(seed)
    return Candidates(
        keys=[f"t{i:05d}" for i in range(size)],
        embeddings=generator.normal(size=(size, dimensions)).astype(np.float32),
        uncertainty=generator.uniform(size=size) if model else None,
    )


strategy = st.sampled_from(sorted(STRATEGIES))


@given(st.integers(0, 40), st.integers(0, 15), st.integers(0, 15), strategy, st.booleans(), st.integers(0, 2**63 - 1))
def test_a_batch_has_distinct_tiles_ranks_and_arm_sizes(size, count, control, strategy, model, seed):
    control = min(control, count)
    batch = select(candidates(size, model=model), count=count, random_count=control, strategy=strategy, seed=seed)
    total = min(count, size)
    assert len({item.index for item in batch}) == len(batch) == total
    assert [item.rank for item in batch] == list(range(total))
    assert sum(item.arm == "random" for item in batch) == min(control, total)


@given(strategy, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_candidates_does_not_matter(strategy, random, model):
    there = candidates(60, model=model)
    order = list(range(60))
    random.shuffle(order)
    shuffled = Candidates(
        [there.keys[i] for i in order],
        there.embeddings[order],
        None if there.uncertainty is None else there.uncertainty[order],
    )
    one = select(there, count=12, random_count=3, strategy=strategy, seed=7)
    two = select(shuffled, count=12, random_count=3, strategy=strategy, seed=7)
    assert [(there.keys[i.index], i.arm, i.score, i.rank) for i in one] == [
        (shuffled.keys[i.index], i.arm, i.score, i.rank) for i in two
    ]


def test_another_seed_draws_another_control_arm():
    arms = {
        tuple(sorted(i.index for i in select(candidates(200), count=20, random_count=10, seed=s) if i.arm == "random"))
        for s in range(5)
    }
    assert len(arms) == 5


def test_the_control_arm_is_uniform_over_all_candidates():
    """Also over the most uncertain ones, which the strategy would like to have itself."""
    there = candidates(20)
    hits = np.zeros(20)
    for seed in range(2000):
        for item in select(there, count=10, random_count=4, seed=seed):
            hits[item.index] += item.arm == "random"
    expected = 2000 * 4 / 20
    chi_squared = ((hits - expected) ** 2 / expected).sum()
    assert chi_squared < 45  # 19 degrees of freedom: p < 0.001


def test_the_control_arm_lies_anywhere_among_the_acquired():
    """Annotators tire and hurry: an arm that always came last would be labelled otherwise."""
    there = candidates(20)
    hits = np.zeros(10)
    for seed in range(1000):
        for item in select(there, count=10, random_count=2, seed=seed):
            hits[item.rank] += item.arm == "random"
    assert ((hits - 200) ** 2 / 200).sum() < 28  # 9 degrees of freedom: p < 0.001


def test_uncertainty_takes_the_most_uncertain():
    there = candidates(50)
    batch = select(there, count=5, strategy="uncertainty")
    assert [item.index for item in batch] == np.argsort(-there.uncertainty)[:5].tolist()
    assert [item.score for item in batch] == sorted(there.uncertainty, reverse=True)[:5]


def test_the_default_starts_with_the_most_uncertain_and_stays_in_the_pool():
    there = candidates(100)
    batch = select(there, count=8, pool_factor=3)
    pool = set(np.argsort(-there.uncertainty)[:24].tolist())
    assert batch[0].index == int(np.argmax(there.uncertainty))
    assert {item.index for item in batch} <= pool
    assert all(item.parts["uncertainty_rank"] < 24 for item in batch)


def test_the_default_does_not_take_near_duplicates_where_the_greedy_one_does():
    """Ten copies of the most uncertain tile, and variety just below them."""
    generator = np.random.default_rng(0)
    copies = np.tile(generator.normal(size=(1, 8)), (10, 1)) + generator.normal(scale=1e-4, size=(10, 8))
    variety = generator.normal(size=(20, 8))
    there = Candidates(
        [f"k{i}" for i in range(30)],
        np.concatenate([copies, variety]).astype(np.float32),
        np.concatenate([np.full(10, 0.9), np.full(20, 0.8)]),
    )
    greedy = select(there, count=6, strategy="uncertainty")
    diverse = select(there, count=6)
    assert sum(item.index < 10 for item in greedy) == 6
    assert sum(item.index < 10 for item in diverse) == 1


def test_what_is_labelled_is_not_covered_again():
    there = Candidates(["a", "b"], np.array([[1, 0], [0, 1]], np.float32), np.array([0.5, 0.5]))
    batch = select(there, count=1, strategy="kcenter", labelled=np.array([[2, 0.01]], np.float32))
    assert batch[0].index == 1


def test_a_cold_start_spreads_over_the_map():
    grid = np.stack(np.meshgrid(np.arange(10), np.arange(10)), -1).reshape(-1, 2).astype(np.float32) * 1000
    there = Candidates([f"c{i:03d}" for i in range(100)], grid)
    chosen = grid[[item.index for item in select(there, count=8, strategy="kcenter", seed=3)]]
    gaps = np.linalg.norm(chosen[:, None] - chosen[None], axis=2)[np.triu_indices(8, 1)]
    assert gaps.min() >= 3000
    assert all(item.score == 0 for item in select(there, count=8, seed=3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 3, "strategy": "margin"}, "unknown: choose one of"),
        ({"count": 3, "random_count": 4}, "makes no sense"),
        ({"count": 3, "pool_factor": 0.5}, "1 or more"),
    ],
)
def test_questions_that_make_no_sense_are_refused(arguments, words):
    with pytest.raises(AcquisitionError, match=words):
        select(candidates(10), **arguments)


def test_candidates_that_do_not_match_are_refused():
    there = candidates(3)
    with pytest.raises(AcquisitionError, match="same key"):
        select(Candidates(["a", "a", "b"], there.embeddings, there.uncertainty), count=1)
    with pytest.raises(AcquisitionError, match="one row for each"):
        select(Candidates(["a", "b"], there.embeddings, None), count=1)
    with pytest.raises(AcquisitionError, match="finite uncertainty"):
        select(Candidates(there.keys, there.embeddings, np.array([0.1, np.nan, 0.2])), count=1)
