"""The command line: results for people and machines, refusals as one sentence with exit code 1."""

import json
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from labeling.models import AnnotationTask
from tests.training.world import make_model, policy
from thawloop.core.models import Job
from thawloop.training.models import Promotion, Retraining
from thawloop.training.selectors import champion
from thawloop.training.services import promote

if TYPE_CHECKING:
    from labeling.models import Campaign

pytestmark = pytest.mark.django_db


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
    assert not Retraining.objects.exists()
    assert not Job.objects.exists()


def test_detached_retrain_starts_and_returns(labelled: "Campaign") -> None:
    told = run("retrain", "--campaign", "site", "--detach", "--reason", "because")
    assert (told["retraining"], told["state"]) == (1, "releasing")
    assert Retraining.objects.get().reason == "because"
    assert "Retraining 1 of `site` is running" in refusal("retrain", "--campaign", "site", "--detach")


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
    assert AnnotationTask.objects.count() == 3


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
    assert Promotion.objects.first().reason == "worse"


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
