"""Promotion by hand and rollback: the previous champion comes back, and predictions follow."""

from typing import TYPE_CHECKING

import pytest

from tests.training.world import make_model
from thawloop.core.context import acting
from thawloop.core.models import AuditEntry, Job
from thawloop.registry.errors import ModelRefused, PromotionConflict
from thawloop.registry.models import ModelAlias
from thawloop.registry.selectors import champion
from thawloop.registry.services import promote, request_predictions, rollback

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from thawloop.campaigns.models import Campaign

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("neighbour")]


def test_promotion_by_a_person_says_who_and_why_and_asks_for_predictions(
    campaign: "Campaign", admin_user: "User"
) -> None:
    version = make_model(campaign, 1)
    with acting(user=admin_user):
        promotion = promote(version, reason="looks right on the map")
    assert (promotion.kind, promotion.actor, promotion.previous) == ("manual", admin_user, None)
    assert champion(campaign) == version
    jobs = dict(Job.objects.values_list("function", "args"))
    assert jobs["ml_backend.jobs.predict"] == {"campaign": campaign.pk, "model_version": version.pk}
    assert jobs["labeling.labelstudio.jobs.refresh"] == {"campaign": campaign.pk}
    assert AuditEntry.objects.get(action="training.promote").reason == "looks right on the map"


def test_champion_cannot_be_promoted_again(campaign: "Campaign") -> None:
    version = make_model(campaign, 1)
    promote(version, reason="x")
    with pytest.raises(PromotionConflict, match="champion of `site` already"):
        promote(version, reason="x")
    assert campaign.promotions.count() == 1


def test_a_model_of_another_network_is_refused_and_the_champion_stays(campaign: "Campaign") -> None:
    first, second = (make_model(campaign, number) for number in (1, 2))
    promote(first, reason="x")
    promote(second, reason="x")
    first.card = {**first.card, "architecture": 1}
    first.save()
    asked = Job.objects.count()
    for again in (lambda: promote(first, reason="x"), lambda: rollback(campaign, reason="x")):
        with pytest.raises(
            ModelRefused, match=r"site-v1 was made by another ThawLoop \(its network is version 1, this"
        ):
            again()
    assert champion(campaign) == second
    assert (campaign.promotions.count(), Job.objects.count()) == (2, asked)


def test_rollback_restores_the_previous_champion_and_a_second_one_goes_further_back(campaign: "Campaign") -> None:
    first, second, third = (make_model(campaign, number) for number in (1, 2, 3))
    for version in (first, second, third):
        promote(version, reason="x")
    rollback(campaign, reason="worse on the map")
    assert champion(campaign) == second
    rollback(campaign, reason="still worse")
    assert champion(campaign) == first
    last = campaign.promotions.first()
    assert (last.kind, last.previous, last.champion) == ("rollback", second, first)
    told = AuditEntry.objects.filter(action="training.rollback").order_by("id")
    assert [(entry.reason, entry.before["champion"], entry.after["champion"]) for entry in told] == [
        ("worse on the map", third.name, second.name),
        ("still worse", second.name, first.name),
    ]
    with pytest.raises(PromotionConflict, match="no other champion to go back to"):
        rollback(campaign, reason="x")


def test_rollback_after_a_promotion_that_followed_a_rollback(campaign: "Campaign") -> None:
    first, second, third = (make_model(campaign, number) for number in (1, 2, 3))
    promote(first, reason="x")
    promote(second, reason="x")
    rollback(campaign, reason="x")
    promote(third, reason="x")
    assert rollback(campaign, reason="x").champion == first


def test_promoted_challenger_is_challenger_no_more(campaign: "Campaign") -> None:
    version = make_model(campaign, 1)
    ModelAlias.objects.create(campaign=campaign, alias="challenger", model_version=version)
    promote(version, reason="x")
    assert [alias.alias for alias in campaign.aliases.all()] == ["champion"]


def test_predictions_need_a_model_of_the_campaign(campaign: "Campaign") -> None:
    with pytest.raises(ModelRefused, match="no champion model yet"):
        request_predictions(campaign)
    other = type(campaign).objects.get(pk=campaign.pk)
    other.pk, other.name = None, "elsewhere"
    other.save()
    with pytest.raises(ModelRefused, match="another campaign"):
        request_predictions(other, make_model(campaign, 1))
