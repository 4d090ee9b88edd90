"""Why a campaign retrains now, and why not, in words."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.releases.site import PERIOD, Site, annotate, tiles, write_labels
from tests.training.world import label_everything, make_model, policy
from thawloop.campaigns.models import Campaign
from thawloop.core.errors import Refused
from thawloop.core.jobs import run_inline
from thawloop.core.models import AuditEntry, Job
from thawloop.registry.services import promote
from thawloop.releases.services import freeze_release, import_labels
from thawloop.training.models import Retraining
from thawloop.training.selectors import CampaignState, explain_policy, outlook
from thawloop.training.services import apply_policies, consider_retraining, set_policy

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("neighbour")]


def test_due_when_enough_is_new(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=12)
    explanation = explain_policy(CampaignState(labelled))
    assert explanation.due
    assert (explanation.new_tiles, explanation.new_labels) == (12, 6)
    assert explanation.reasons == ["12 tiles and 6 labels are new so far."]
    assert explanation.blocking == []


def test_says_how_many_are_to_go(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=20, min_new_labels=10)
    explanation = explain_policy(CampaignState(labelled))
    assert not explanation.due
    assert "12 of 20 new tiles so far; 8 to go." in explanation.reasons
    assert "6 of 10 changed labels so far; 4 to go." in explanation.reasons
    assert (explanation.needed_tiles, explanation.needed_labels) == (8, 4)


def test_counts_from_the_last_trained_release_and_never_retrains_on_nothing_new(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=0, min_new_labels=0)
    release = freeze_release(labelled)
    Retraining.objects.create(campaign=labelled, number=1, reason="x", state="done", release=release)
    explanation = explain_policy(CampaignState(labelled))
    assert explanation.reasons == [f"0 of 1 new tiles since release {release.version}; 1 to go."]


@pytest.mark.parametrize(
    ("change", "blocking", "words"),
    [
        ({"enabled": False}, "disabled", "switched off"),
        ({"cooldown_minutes": 60}, "cooldown", "not before"),
    ],
)
def test_policy_itself_can_stand_in_the_way(labelled: "Campaign", change: dict, blocking: str, words: str) -> None:
    policy(labelled, min_new_tiles=1, **change)
    Retraining.objects.create(campaign=labelled, number=1, reason="x", state="done")
    explanation = explain_policy(CampaignState(labelled))
    assert not explanation.due
    assert explanation.blocking == [blocking]
    assert words in explanation.reasons[0]


def test_cooldown_ends(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=1, cooldown_minutes=60)
    Retraining.objects.create(campaign=labelled, number=1, reason="x", state="done")
    labelled.retrainings.update(created=timezone.now() - timedelta(minutes=61))
    assert explain_policy(CampaignState(labelled)).due


def test_paused_campaign_and_missing_policy_and_running_retraining_are_named(labelled: "Campaign") -> None:
    labelled.state = "paused"
    labelled.save()
    Retraining.objects.create(campaign=labelled, number=1, reason="x", state="finetuning")
    explanation = explain_policy(CampaignState(labelled))
    assert explanation.blocking == ["no_policy", "campaign", "running"]
    assert "Retraining 1 is running (finetuning)." in explanation.reasons


def test_unlabelled_campaign_says_what_is_missing(campaign: "Campaign") -> None:
    policy(campaign, min_new_tiles=1)
    explanation = explain_policy(CampaignState(campaign))
    assert "No training tile is labelled yet." in explanation.reasons
    assert any("No test tile is labelled" in reason for reason in explanation.reasons)


@pytest.mark.parametrize(
    ("state", "words"), [("failed", "failed (The disk is full.) Mend that, then retry it"), ("cancelled", "retry it")]
)
def test_what_was_stopped_uses_nothing_up_and_is_not_repeated_for_ever(
    labelled: "Campaign", data_root: Path, state: str, words: str
) -> None:
    policy(labelled, min_new_tiles=12)
    release = freeze_release(labelled)
    Retraining.objects.create(
        campaign=labelled, number=1, reason="x", state=state, error="The disk is full.", release=release
    )
    explanation = explain_policy(CampaignState(labelled))
    assert (explanation.new_tiles, explanation.new_labels) == (12, 6)
    assert explanation.blocking == [state]
    assert words in explanation.reasons[0]
    import_labels(labelled, write_labels(data_root / "more.geojson", Site().square(2, 1)))
    assert explain_policy(CampaignState(labelled)).due


def test_an_annotation_after_what_failed_is_reason_enough_to_try_again(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=12)
    annotate(labelled, tiles(labelled, "train")[0])
    Retraining.objects.create(campaign=labelled, number=1, reason="x", state="failed", error="The disk is full.")
    assert explain_policy(CampaignState(labelled)).blocking == ["failed"]
    annotate(labelled, tiles(labelled, "train")[1])
    assert explain_policy(CampaignState(labelled)).due


def test_a_model_that_was_judged_uses_its_labels_up_whatever_came_after(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=1)
    release = freeze_release(labelled)
    Retraining.objects.create(
        campaign=labelled, number=1, reason="x", state="cancelled", promoted=True, release=release
    )
    explanation = explain_policy(CampaignState(labelled))
    assert (explanation.new_tiles, explanation.blocking) == (0, ["labels"])


@pytest.mark.parametrize(("enabled", "jobs"), [(True, 1), (False, 0)])
def test_labels_that_arrive_have_the_policy_asked_soon(
    campaign: "Campaign", data_root: Path, enabled: bool, jobs: int
) -> None:
    policy(campaign, min_new_tiles=12, enabled=enabled)
    label_everything(campaign, data_root)
    asked = Job.objects.filter(function="thawloop.training.jobs.consider", args={"campaign": campaign.pk})
    assert asked.count() == jobs
    for job in asked:
        assert run_inline(job.pk).result == {"retraining": 1}


def test_policy_starts_a_retraining_once_and_gives_its_explanation_as_reason(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=10)
    assert len(apply_policies()) == 1
    retraining = labelled.retrainings.get()
    assert retraining.reason == "12 tiles and 6 labels are new so far."
    assert apply_policies() == []
    assert consider_retraining(labelled) is None
    assert labelled.retrainings.count() == 1


def test_campaign_that_cannot_be_retrained_does_not_hold_up_the_others(labelled: "Campaign", data_root: Path) -> None:
    other = Campaign.objects.create(name="other", title="Other", grid=labelled.grid, **PERIOD)
    other.classes.set(labelled.classes.all())
    for row in [*labelled.campaign_modalities.all(), *labelled.campaign_regions.all()]:
        row.pk, row.campaign = None, other
        row.save()
    label_everything(other, data_root)
    labelled.detector = {"itterations": 3}
    labelled.save()
    for campaign in (labelled, other):
        policy(campaign, min_new_tiles=10)
    with pytest.raises(Refused, match="did you mean `iterations`"):
        apply_policies()
    assert (labelled.retrainings.count(), other.retrainings.count()) == (0, 1)


def test_policy_is_changed_through_a_service_that_refuses_nonsense(labelled: "Campaign") -> None:
    from thawloop.training.errors import RetrainingRefused

    assert set_policy(labelled, min_new_tiles=7).min_new_tiles == 7
    assert set_policy(labelled, enabled=False).min_new_tiles == 7
    with pytest.raises(RetrainingRefused, match="no `min_tiles`"):
        set_policy(labelled, min_tiles=3)
    with pytest.raises(RetrainingRefused, match="`min_new_tiles` makes no sense"):
        set_policy(labelled, min_new_tiles=-3)


def test_the_audit_says_what_a_policy_was_before_and_that_the_first_was_none(labelled: "Campaign") -> None:
    set_policy(labelled)
    set_policy(labelled, min_new_tiles=7)
    set_policy(labelled, min_new_tiles=7)
    first, second = AuditEntry.objects.filter(action="training.set_policy").order_by("id")
    assert (first.before, first.after["min_new_tiles"]) == (None, 50)
    assert {**second.before, "min_new_tiles": 7} == second.after
    assert second.before == first.after


def test_outlook_says_what_a_retraining_would_do_and_changes_nothing(labelled: "Campaign") -> None:
    ahead = outlook(CampaignState(labelled))
    assert ahead.can_start
    assert ahead.tiles == {"train": 12, "val": 0, "test": 6}
    assert ahead.labels == 6
    assert ahead.stages == [
        "Freeze the labels into a release and write its dataset directory.",
        "Pretrain rgb alone for 2 iterations.",
        "Pretrain dem alone for 2 iterations.",
        "Train nano on rgb + dem for 2 iterations, starting from unimodal weights of rgb, dem.",
        "Measure it on the release's test tiles.",
        "Promote it if it is better; then predict the campaign's tiles and refresh the open tasks.",
    ]
    assert labelled.retrainings.count() == 0


def test_outlook_names_the_champion_that_is_continued_and_measured_again(labelled: "Campaign") -> None:
    promote(make_model(labelled), reason="x", request_predictions_now=False)
    assert outlook(CampaignState(labelled)).stages[1:3] == [
        "Train nano on rgb + dem for 2 iterations, starting from the champion site-v1.",
        "Measure it and the champion site-v1 on the release's test tiles.",
    ]


def test_outlook_of_an_unlabelled_campaign_says_why_not(campaign: "Campaign") -> None:
    ahead = outlook(CampaignState(campaign))
    assert not ahead.can_start
    assert ahead.obstacle == "No tile of the train regions is labelled."


def test_what_is_asked_again_is_counted_again_only_when_something_changed(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=10)
    first = explain_policy(CampaignState(labelled))
    with CaptureQueriesContext(connection) as queries:
        assert explain_policy(CampaignState(labelled)) == first
    assert not [query["sql"] for query in queries if "labeling_annotationtask" in query["sql"]]
    labelled.campaign_regions.filter(split="test").update(split="val")
    assert "No test tile is labelled" in explain_policy(CampaignState(labelled)).reasons[0]
    assert explain_policy(CampaignState(labelled)).new_tiles == 18
    labelled.imports.update(coverage=None)
    assert explain_policy(CampaignState(labelled)).new_tiles == 0


def test_a_pass_counts_nothing_while_a_retraining_runs(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=10)
    Retraining.objects.create(campaign=labelled, number=1, reason="x", state="finetuning")
    with CaptureQueriesContext(connection) as queries:
        assert apply_policies() == []
    assert not [query["sql"] for query in queries if "catalog_tile" in query["sql"]]


def test_a_pass_asks_nothing_about_policies_that_are_switched_off(
    campaign: "Campaign", django_assert_num_queries
) -> None:
    policy(campaign, enabled=False)
    with django_assert_num_queries(1):
        assert apply_policies() == []


def test_outlook_asks_no_question_twice(labelled: "Campaign") -> None:
    with CaptureQueriesContext(connection) as queries:
        outlook(CampaignState(labelled))
    counted = [query["sql"] for query in queries if "catalog_tile" in query["sql"] and "GROUP BY" in query["sql"]]
    assert len(counted) == 1
