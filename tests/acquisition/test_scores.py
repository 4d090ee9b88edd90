"""Uncertainty of a tile: bounded, explained, and ordered as a person would order tiles."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.acquisition import AcquisitionError, uncertainty
from ml_backend.acquisition.scores import stage_disagreement

SAME_BOX = ((0.0, 0.0, 10.0, 10.0),) * 3
APART = ((0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0))


@dataclass(frozen=True)
class Scored:
    score: float = 0.9
    stage_scores: tuple[float, ...] = (0.9, 0.9, 0.9)
    stage_boxes: tuple[tuple[float, ...], ...] = SAME_BOX
    mask_entropy: float = 0.0
    class_entropy: float = 0.0


fraction = st.floats(0, 1)
coordinate = st.floats(-1000, 1000)
instances = st.builds(
    Scored,
    score=fraction,
    stage_scores=st.tuples(fraction, fraction, fraction),
    stage_boxes=st.tuples(*[st.tuples(coordinate, coordinate, coordinate, coordinate)] * 3),
    mask_entropy=fraction,
    class_entropy=fraction,
)


@given(st.lists(instances, max_size=8))
def test_value_and_doubts_are_fractions(found):
    result = uncertainty(found)
    assert 0 <= result.value <= 1
    assert all(0 <= result.parts[name] <= 1 + 1e-9 for name in ("mask_entropy", "class_entropy", "stage_disagreement"))
    assert result.parts["instances"] == len(found)


@given(st.lists(instances, max_size=6), instances)
def test_one_more_instance_never_makes_a_tile_more_certain(found, another):
    assert uncertainty([*found, another]).value >= uncertainty(found).value - 1e-12


@given(st.lists(instances, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_of_instances_does_not_matter(found, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    assert uncertainty(shuffled).value == pytest.approx(uncertainty(found).value, abs=1e-12)


@given(instances, fraction)
def test_uncertainty_grows_with_each_doubt(instance, more):
    for name in ("mask_entropy", "class_entropy"):
        raised = replace(instance, **{name: max(more, getattr(instance, name))})
        assert uncertainty([raised]).value >= uncertainty([instance]).value - 1e-12


def test_a_tile_without_any_candidate_is_certain():
    assert uncertainty([]).value == 0


def test_a_crisp_agreed_instance_is_certain():
    assert uncertainty([Scored()]).value == 0


def test_a_faint_candidate_counts_less_than_a_likely_one_with_the_same_doubts_but_more_than_nothing():
    faint, likely = Scored(score=0.1, mask_entropy=0.6), Scored(score=0.5, mask_entropy=0.6)
    assert 0 < uncertainty([faint]).value < uncertainty([likely]).value
    assert uncertainty([faint]).value == pytest.approx(0.2 * 0.2)


def test_many_faint_candidates_do_not_outvote_one_real_doubt():
    crowd = [Scored(score=0.05, class_entropy=0.3)] * 100
    doubt = [Scored(score=0.5, class_entropy=1.0, mask_entropy=0.5)]
    assert uncertainty(crowd).value < uncertainty(doubt).value


def test_stages_that_agree_do_not_disagree_and_disjoint_ones_do_fully():
    assert stage_disagreement([0.7, 0.7, 0.7], SAME_BOX) == 0
    assert stage_disagreement([0.0, 0.5, 1.0], APART) == 1
    assert stage_disagreement([0.7, 0.7, 0.7], APART) == 0.5


def test_box_disagreement_is_one_minus_the_mean_pairwise_iou():
    boxes = [[0, 0, 2, 1], [1, 0, 3, 1], [0, 0, 2, 1]]  # IoU 1/3, 1, 1/3
    assert stage_disagreement([0.5] * 3, boxes) == pytest.approx(0.5 * (1 - (1 / 3 + 1 + 1 / 3) / 3))


@pytest.mark.parametrize(
    "instance",
    [Scored(score=float("nan")), Scored(mask_entropy=float("inf")), Scored(stage_scores=(0.1, 0.2))],
)
def test_broken_instances_are_refused_in_a_sentence(instance):
    with pytest.raises(AcquisitionError, match=r"\.$"):
        uncertainty([instance])


def test_arrays_are_taken_as_well_as_tuples():
    instance = Scored(stage_scores=np.array([0.2, 0.6, 0.9], np.float32), stage_boxes=np.array(SAME_BOX, np.float32))
    assert uncertainty([instance]).parts["stage_disagreement"] == pytest.approx(0.35)
