"""A campaign whose anchor is chosen: by what detectors of one modality alone find on the val tiles, and once."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts.stages import PRETRAINING_SEEDS
from tests.releases.site import Site, make_campaign, write_labels
from tests.training.world import TINY, drive, make_model, queued
from thawloop.core.jobs import run_inline
from thawloop.core.models import AuditEntry
from thawloop.registry.selectors import champion
from thawloop.registry.services import promote
from thawloop.releases.services import import_labels
from thawloop.training.models import Retraining, TrainingRun
from thawloop.training.selectors import CampaignState, outlook
from thawloop.training.services import cancel_retraining, settle_anchor, start_retraining

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("neighbour")]


@pytest.fixture
def bare(data_root: Path) -> "Campaign":
    """RGB and DEM on train, test and val tiles; labels on the first two, and an anchor to be chosen."""
    campaign = make_campaign(data_root, val=True, dem_columns=9)
    label_squares(campaign, data_root, (0, 0), (1, 1), (2, 2), (3, 0), (5, 0), (6, 2))
    configure(campaign, **TINY, anchor="best")
    return campaign


@pytest.fixture
def campaign(bare: "Campaign", data_root: Path) -> "Campaign":
    """The same with a label on a val tile, so that a choice can be made."""
    label_squares(bare, data_root, (8, 0))
    return bare


def label_squares(campaign: "Campaign", data_root: Path, *places: tuple[int, int]) -> None:
    squares = [Site().square(*place) for place in places]
    import_labels(campaign, write_labels(data_root / f"{places[0]}.geojson", *squares), coverage="regions")


def configure(campaign: "Campaign", **values: object) -> None:
    campaign.detector = {**campaign.detector, **values}
    campaign.save()


def pretrain(campaign: "Campaign", **found: float) -> Retraining:
    """Retrain up to the choice, by detectors that found so much of val (AP50); two iterations teach them nothing."""
    retraining = start_retraining(campaign, reason="x")
    for step in ("release", "pretrain:rgb", "pretrain:dem"):
        (job,) = [job for job in queued() if job.key.endswith(f":{step}")]
        run_inline(job.pk)
    for name, ap50 in found.items():
        run = retraining.runs.get(modality__name=name)
        run.metrics = {**run.metrics, "ap50": ap50}
        run.save()
    return retraining


def choices() -> list[str]:
    """The anchors that were chosen, in order."""
    return [entry.after["anchor"] for entry in AuditEntry.objects.filter(action="training.settle_anchor")]


def test_it_is_what_finds_the_most_alone_and_its_model_is_continued(campaign: "Campaign") -> None:
    assert (
        outlook(CampaignState(campaign))
        .stages[3]
        .endswith("rgb, dem, the anchor being the one that finds the most alone.")
    )
    retraining = pretrain(campaign, rgb=0.1, dem=0.4)
    *pretraining, run = retraining.runs.order_by("id")
    assert run.config["anchor"] == ""
    assert {other.seed for other in pretraining} == {run.seed + PRETRAINING_SEEDS}, "not the same turns of tiles again"
    drive()
    version = champion(campaign)
    assert (version.card["anchor"], version.card["config"]["anchor"]) == ("dem", "dem")
    run.refresh_from_db()
    assert (run.config["anchor"], run.init["anchor_scores"]) == ("dem", {"rgb": 0.1, "dem": 0.4})

    assert outlook(CampaignState(campaign)).stages[1].endswith("starting from the champion site-v1.")
    start_retraining(campaign, reason="two")
    assert drive()[:3] == ["release", "finetune", "evaluate"]
    run = TrainingRun.objects.latest("id")
    assert (run.config["anchor"], run.init) == ("dem", {"checkpoint": version.path})
    assert "(95 % interval over test tiles " in run.retraining.verdict
    assert choices() == ["dem"]


@pytest.mark.slow
@pytest.mark.parametrize(("rgb", "dem"), [(0.5, 0.1), (0.1, 0.5)])
def test_it_is_chosen_once_even_if_the_gate_refuses_what_was_built_on_it(
    campaign: "Campaign", rgb: float, dem: float
) -> None:
    """A champion that was there before, on rgb, is continued if that is what was chosen."""
    first = pretrain(campaign, rgb=rgb, dem=dem)
    first.refresh_from_db()
    promote(make_model(campaign, 7, release=first.release, ap50=0.9), reason="x", request_predictions_now=False)
    assert drive() == ["finetune", "evaluate"]
    first.refresh_from_db()
    assert first.promoted is False
    plan = outlook(CampaignState(campaign)).stages
    if rgb > dem:
        assert plan[1].endswith("starting from the champion site-v7.")
    else:
        assert plan[1].endswith("starting from unimodal weights of rgb, dem.")
        start_retraining(campaign, reason="two")
        assert drive()[:2] == ["release", "finetune"]
        assert TrainingRun.objects.latest("id").config["anchor"] == "dem"
    assert choices() == ["rgb" if rgb > dem else "dem"]


@pytest.mark.slow
def test_a_choice_that_a_killed_worker_had_made_is_not_made_again(campaign: "Campaign") -> None:
    run = pretrain(campaign, rgb=0.4, dem=0.1).runs.get(stage="finetune")
    settle_anchor(run, "dem", {"rgb": 0.0, "dem": 0.2})
    settle_anchor(TrainingRun.objects.get(pk=run.pk), "rgb", {})
    drive()
    assert champion(campaign).card["anchor"] == "dem"
    assert choices() == ["dem"]


@pytest.mark.slow
def test_detectors_of_an_earlier_retraining_are_measured_on_todays_val_tiles(campaign: "Campaign") -> None:
    cancel_retraining(pretrain(campaign, rgb=0.1, dem=0.4))
    retraining = start_retraining(campaign, reason="again")
    assert drive()[:2] == ["release", "finetune"]
    scores = retraining.runs.get(stage="finetune").init["anchor_scores"]
    assert set(scores) == {"rgb", "dem"}
    assert max(scores.values()) < 0.4, "what two iterations really find"
    assert champion(campaign).card["anchor"] == ("dem" if scores["dem"] > scores["rgb"] else "rgb")


@pytest.mark.slow
def test_without_val_labels_it_is_the_one_people_draw_on_until_there_are_some(
    bare: "Campaign", data_root: Path
) -> None:
    assert "anchor" not in outlook(CampaignState(bare)).stages[3]
    pretrain(bare, rgb=0.0, dem=0.4)
    drive()
    assert champion(bare).card["anchor"] == "rgb"
    assert outlook(CampaignState(bare)).stages[1].endswith("starting from the champion site-v1.")
    label_squares(bare, data_root, (8, 0))
    assert "the anchor being the one" in outlook(CampaignState(bare)).stages[1], "unimodal detectors are there already"
    assert choices() == []


@pytest.mark.slow
def test_without_pretraining_it_is_the_one_people_draw_on(campaign: "Campaign") -> None:
    configure(campaign, pretrain_iterations=0)
    start_retraining(campaign, reason="one")
    assert drive()[:2] == ["release", "finetune"]
    assert champion(campaign).card["anchor"] == "rgb"
    assert outlook(CampaignState(campaign)).stages[1].endswith("starting from the champion site-v1.")


@pytest.mark.slow
def test_stacked_bands_start_as_the_detector_that_finds_the_most_alone(campaign: "Campaign") -> None:
    configure(campaign, fusion="stack")
    pretrain(campaign, rgb=0.1, dem=0.4)
    assert drive()[:2] == ["finetune", "evaluate"]
    card = champion(campaign).card
    assert (card["anchor"], card["config"]["fusion"], list(card["init"])) == ("dem", "stack", ["dem"])


def test_where_nothing_can_be_measured_a_champion_is_continued_on_its_own_anchor(bare: "Campaign") -> None:
    configure(bare, anchor="dem")
    promote(make_model(bare), reason="x")
    configure(bare, anchor="best")
    assert outlook(CampaignState(bare)).stages[1].endswith("starting from the champion site-v1.")


def test_where_nothing_can_be_measured_another_model_begins_on_what_people_draw_on(bare: "Campaign") -> None:
    assert "anchor" not in outlook(CampaignState(bare)).stages[3]
    configure(bare, anchor="dem")
    promote(make_model(bare), reason="x")
    configure(bare, anchor="best", size="tiny")
    assert outlook(CampaignState(bare)).stages[3].startswith("Train tiny on rgb + dem")
    assert "champion" not in outlook(CampaignState(bare)).stages[3]


def test_a_champion_whose_anchor_was_not_chosen_is_left_for_one_that_is(campaign: "Campaign") -> None:
    promote(make_model(campaign), reason="x")
    assert [stage.split()[0] for stage in outlook(CampaignState(campaign)).stages[1:4]] == [
        "Pretrain",
        "Pretrain",
        "Train",
    ]
