"""The command line: results for people and machines, refusals as one sentence with exit code 1."""

import getpass
import json
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from tests.releases.site import annotate, tiles
from tests.training.world import make_model, policy
from thawloop.core.models import Job
from thawloop.registry.models import ModelVersion
from thawloop.registry.selectors import champion
from thawloop.registry.services import promote
from thawloop.releases.models import Release
from thawloop.releases.services import freeze_release
from thawloop.training.models import Retraining, TrainingRun
from thawloop.training.services import record_evaluation

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("neighbour")]


def run(*arguments: str) -> Any:
    """The JSON a command prints."""
    out = StringIO()
    call_command(*arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def refusal(*arguments: str) -> str:
    """The sentence of a command that exits with 1."""
    with pytest.raises(CommandError) as error:
        call_command(*arguments, stdout=StringIO())
    assert error.value.returncode == 1
    return str(error.value)


def test_dry_run_tells_and_changes_nothing(labelled: "Campaign") -> None:
    told = run("retrain", "--campaign", "site", "--dry-run")
    assert told["can_start"]
    assert told["tiles"] == {"train": 12, "val": 0, "test": 6}
    assert told["stages"][0].startswith("Freeze the labels")
    assert not labelled.retrainings.exists()
    assert not Job.objects.exists()


def test_detached_retrain_starts_and_returns(labelled: "Campaign") -> None:
    told = run("retrain", "--campaign", "site", "--detach", "--reason", "because")
    assert (told["retraining"], told["state"]) == (1, "releasing")
    assert labelled.retrainings.get().reason == "because"
    assert "Retraining 1 of `site` is running" in refusal("retrain", "--campaign", "site", "--detach")


def test_a_retraining_without_a_reason_says_who_asked(labelled: "Campaign") -> None:
    run("retrain", "--campaign", "site", "--detach")
    assert labelled.retrainings.get().reason == f"asked for by {getpass.getuser()} on the command line"


def test_retrain_tells_how_its_model_did_on_the_test_tiles_of_its_own_release(labelled: "Campaign") -> None:
    earlier = freeze_release(labelled)
    annotate(labelled, tiles(labelled, "train")[0])
    own = freeze_release(labelled)
    promote(make_model(labelled, 7, release=own, ap50=0.6), reason="x", request_predictions_now=False)
    retraining = Retraining.objects.create(
        campaign=labelled, number=8, reason="x", state="failed", error="The disk is full.", release=own
    )
    version = make_model(labelled, 8, release=own)
    ModelVersion.objects.filter(pk=version.pk).update(retraining=retraining)
    TrainingRun.objects.create(retraining=retraining, stage="finetune", config={}, seed=1, path=version.path)
    for release, split, ap50 in ((earlier, "test", 0.9), (own, "val", 0.8), (own, "test", 0.5)):
        record_evaluation(version, release, {"ap": ap50, "ap50": ap50, "ap30": ap50}, split=split)
    Release.objects.filter(pk=own.pk).update(state="ready", path="releases/x", manifest_checksum="x")
    told = run("retrain", "--campaign", "site", "--retry")
    assert (told["model_version"], told["ap50"], told["promoted"]) == ("site-v8", 0.5, False)
    assert told["release"] == own.version


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("retrain", "--campaign", "nowhere"), "There is no campaign 'nowhere'"),
        (("retrain", "--campaign", "site"), "No tile of the train regions is labelled"),
        (("retrain", "--campaign", "site", "--follow"), "is not retraining"),
        (("retrain", "--campaign", "site", "--retry"), "never been retrained"),
        (("predict", "--campaign", "site"), "no champion model yet"),
        (("predict", "--campaign", "site", "--model", "x-v1"), "no model version `x-v1`; it has none yet"),
        (("acquire", "--campaign", "site", "--count", "0"), "batch of 0"),
        (("promote", "x-v1", "--reason", "y"), "no model version `x-v1`"),
        (("rollback", "--campaign", "site", "--reason", "y"), "no other champion"),
    ],
)
def test_refusals_are_one_sentence(campaign: "Campaign", arguments: tuple[str, ...], words: str) -> None:
    sentence = refusal(*arguments)
    assert words in sentence
    assert "\n" not in sentence
    assert not Job.objects.exists()


def test_acquire_inline_gives_the_batch(campaign: "Campaign") -> None:
    told = run("acquire", "--campaign", "site", "--count", "3", "--inline")
    assert (told["batch"], told["tiles"], told["state"]) == (1, 3, "succeeded")
    assert campaign.tasks.count() == 3


def test_promote_and_rollback(campaign: "Campaign") -> None:
    first, second = make_model(campaign, 1), make_model(campaign, 2)
    promote(first, reason="x")
    assert run("promote", second.name, "--reason", "better") == {
        "campaign": "site",
        "champion": second.name,
        "previous": first.name,
    }
    assert run("rollback", "--campaign", "site", "--reason", "worse")["champion"] == first.name
    assert champion(campaign) == first
    assert campaign.promotions.first().reason == "worse"


def test_reconcile_of_a_campaign_starts_what_is_due_and_then_finds_everything_in_order(labelled: "Campaign") -> None:
    policy(labelled, min_new_tiles=5)
    done = run("reconcile", "--campaign", "site")
    assert any("Started retraining 1" in sentence for sentence in done["training.policy"])
    again = run("reconcile", "--campaign", "site")
    assert again["training.policy"] == again["training.advance"] == []


def test_reconcile_runs_every_registered_reconciler(campaign: "Campaign") -> None:
    campaign.state = "paused"  # nothing to ask Label Studio for
    campaign.save()
    assert {"core.jobs", "training.advance", "training.policy", "labeling.events"} <= set(run("reconcile"))
