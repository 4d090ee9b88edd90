"""A challenger becomes champion only by being better on the same test tiles."""

from typing import TYPE_CHECKING

import pytest

from tests.training.world import made_by, make_model, policy
from thawloop.core.models import AuditEntry
from thawloop.registry.models import ModelAlias, Promotion
from thawloop.registry.selectors import champion
from thawloop.registry.services import promote
from thawloop.releases.services import freeze_release
from thawloop.training.models import Evaluation, Retraining
from thawloop.training.services import decide, record_evaluation
from thawloop.training.services.gate import missing_evaluations

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("neighbour")]


def retraining_of(campaign: "Campaign", number: int = 2) -> Retraining:
    return Retraining.objects.create(
        campaign=campaign, number=number, reason="test", state="evaluating", release=freeze_release(campaign)
    )


def test_better_challenger_is_promoted_with_the_numbers_as_reason(labelled: "Campaign") -> None:
    retraining = retraining_of(labelled)
    old = make_model(labelled, 1, release=retraining.release, ap50=0.40)
    promote(old, reason="first", request_predictions_now=False)
    new = made_by(retraining, 0.55)

    assert decide(retraining)

    assert champion(labelled) == new
    retraining.refresh_from_db()
    assert retraining.promoted
    assert "0.550" in retraining.verdict
    assert "0.400" in retraining.verdict
    last = labelled.promotions.first()
    assert (last.kind, last.previous, last.champion, last.reason) == ("gate", old, new, retraining.verdict)


def test_a_champion_of_another_network_gives_way_to_any_challenger_that_finds_something(labelled: "Campaign") -> None:
    retraining = retraining_of(labelled)
    old = make_model(labelled, 1, release=retraining.release, ap50=0.40)
    promote(old, reason="first", request_predictions_now=False)
    old.card = {**old.card, "architecture": 1}
    old.save()
    new = made_by(retraining, 0.1)

    assert decide(retraining)

    assert champion(labelled) == new
    assert retraining.verdict.endswith("; the champion site-v1 was made by another ThawLoop and cannot predict here.")


def test_but_not_to_one_that_finds_nothing(labelled: "Campaign") -> None:
    retraining = retraining_of(labelled)
    old = make_model(labelled, 1)
    promote(old, reason="first", request_predictions_now=False)
    old.card = {**old.card, "architecture": 1}
    old.save()
    record_evaluation(old, retraining.release, {"error": "is of version 1 of the network"})
    made_by(retraining, 0.0)
    assert not decide(retraining)
    assert champion(labelled) == old
    assert "is of version 1 of the network" in retraining.verdict


@pytest.mark.parametrize("ap50", [0.39, 0.40])
def test_challenger_that_is_not_better_is_refused(labelled: "Campaign", ap50: float) -> None:
    retraining = retraining_of(labelled)
    old = make_model(labelled, 1, release=retraining.release, ap50=0.40)
    promote(old, reason="first", request_predictions_now=False)
    made_by(retraining, ap50)

    assert not decide(retraining)

    assert champion(labelled) == old
    assert retraining.promoted is False
    assert f"{old.name} stays" in retraining.verdict


@pytest.mark.parametrize("second", ["challenger", "champion"])
def test_the_verdict_tells_how_sure_the_gain_is(labelled: "Campaign", second: str) -> None:
    retraining = retraining_of(labelled)
    old, new = make_model(labelled, 1), made_by(retraining, 0.55)
    promote(old, reason="first", request_predictions_now=False)
    record_evaluation(old, retraining.release, {"ap": 0.2, "ap50": 0.40, "ap30": 0.5})
    if second == "challenger":
        version, gains = new, {old.name: {"low": -0.02, "high": 0.31}}
    else:
        version, gains = old, {new.name: {"low": -0.31, "high": 0.02}}
    Evaluation.objects.filter(model_version=version).update(metrics={"gain_over": gains})
    assert decide(retraining)
    assert retraining.verdict.endswith("a gain of +0.150 (95 % interval over test tiles -0.020 to +0.310).")


def test_gate_asks_for_the_policys_gain(labelled: "Campaign") -> None:
    policy(labelled, gate_min_gain=0.1)
    retraining = retraining_of(labelled)
    promote(make_model(labelled, 1, release=retraining.release, ap50=0.40), reason="x", request_predictions_now=False)
    made_by(retraining, 0.45)
    assert not decide(retraining)
    assert "more than +0.100 was asked for" in retraining.verdict


def test_first_measured_model_passes_even_when_it_finds_nothing(labelled: "Campaign") -> None:
    retraining = retraining_of(labelled, 1)
    new = made_by(retraining, 0.0)
    assert decide(retraining)
    assert champion(labelled) == new


def test_without_test_instances_nothing_is_promoted(labelled: "Campaign") -> None:
    retraining = retraining_of(labelled, 1)
    made_by(retraining, None)
    assert not decide(retraining)
    assert champion(labelled) is None
    assert "no labelled instance" in retraining.verdict


def test_champion_that_cannot_be_measured_leaves_the_decision_to_a_person(labelled: "Campaign") -> None:
    retraining = retraining_of(labelled)
    old = make_model(labelled, 1)
    promote(old, reason="first", request_predictions_now=False)
    record_evaluation(old, retraining.release, {"error": "it does not know the class `lake`"})
    made_by(retraining, 0.9)
    assert not decide(retraining)
    assert champion(labelled) == old
    assert "does not know the class `lake`" in retraining.verdict


def test_challenger_and_champion_of_the_moment_must_be_measured_on_the_same_release(labelled: "Campaign") -> None:
    retraining = retraining_of(labelled)
    old = make_model(labelled, 1)
    new = made_by(retraining, 0.5)
    assert missing_evaluations(retraining) == []
    promote(old, reason="by hand, meanwhile", request_predictions_now=False)
    assert missing_evaluations(retraining) == [old]
    record_evaluation(old, retraining.release, {"ap": 0.1, "ap50": 0.2, "ap30": 0.3, "n_instances": 2})
    assert missing_evaluations(retraining) == []
    assert {row.model_version for row in Evaluation.objects.filter(release=retraining.release)} == {old, new}


def test_what_was_measured_on_val_tiles_is_not_what_the_gate_compares(labelled: "Campaign") -> None:
    retraining = retraining_of(labelled)
    old = make_model(labelled, 1)
    promote(old, reason="first", request_predictions_now=False)
    new = made_by(retraining, 0.5)
    for version, ap50 in ((old, 0.1), (new, 0.9)):
        record_evaluation(version, retraining.release, {"ap": ap50, "ap50": ap50, "ap30": ap50}, split="val")
    assert missing_evaluations(retraining) == [old]
    record_evaluation(old, retraining.release, {"ap": 0.6, "ap50": 0.6, "ap30": 0.6})
    assert not decide(retraining)
    assert "site-v2 reaches AP50 0.500" in retraining.verdict
    assert "the champion site-v1 0.600" in retraining.verdict


def test_evaluation_is_kept_once_and_never_rewritten(labelled: "Campaign") -> None:
    release = freeze_release(labelled)
    version = make_model(labelled, 1)
    first = record_evaluation(version, release, {"ap": 0.1, "ap50": 0.2, "ap30": 0.3, "n_instances": 2})
    again = record_evaluation(version, release, {"ap": 0.9, "ap50": 0.9, "ap30": 0.9, "n_instances": 2})
    assert again == first
    assert again.ap50 == 0.2
    assert AuditEntry.objects.filter(action="training.record_evaluation").count() == 1


def test_precisions_of_a_split_without_instances_are_none_and_nan_never_reaches_the_database(
    labelled: "Campaign",
) -> None:
    release = freeze_release(labelled)
    nothing = {"ap": 0.0, "ap50": 0.0, "ap30": 0.0, "n_instances": 0, "per_image": {"a": {"iou": float("nan")}}}
    nothing["curve"] = [0.5, (float("nan"), float("inf"))]
    row = record_evaluation(make_model(labelled, 1), release, nothing)
    row.refresh_from_db()
    assert (row.ap, row.ap50, row.ap30) == (None, None, None)
    assert row.metrics["per_image"]["a"]["iou"] is None
    assert row.metrics["curve"] == [0.5, [None, None]]


def test_promotions_cannot_be_rewritten(labelled: "Campaign") -> None:
    from django.db import DatabaseError, transaction

    promotion = promote(make_model(labelled, 1), reason="first", request_predictions_now=False)
    with pytest.raises(DatabaseError), transaction.atomic():
        Promotion.objects.filter(pk=promotion.pk).update(reason="something else")
    assert ModelAlias.objects.get(campaign=labelled).alias == "champion"
