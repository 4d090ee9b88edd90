"""`manage.py retrain`."""

import getpass
import time
from argparse import ArgumentParser
from typing import Any

from thawloop.campaigns.models import Campaign
from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused
from thawloop.core.models import Job
from thawloop.training.errors import RetrainingRefused
from thawloop.training.models import Retraining
from thawloop.training.selectors import CampaignState, active_retraining, outlook
from thawloop.training.services import advance_retraining, retry_retraining, start_retraining
from thawloop.training.services.steps import step_key


class Command(ThawloopCommand):
    """Retrain a campaign's model."""

    help = (
        "Freeze a campaign's labels into a release, train a challenger on it, measure it and the champion on the test "
        "tiles, promote it if it is better, and predict the tiles again. Ctrl-C stops watching, not the retraining; "
        "--follow watches one that is running."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--campaign", required=True, help="name of the campaign")
        parser.add_argument("--reason", default="", help="why, for the record")
        parser.add_argument("--seed", type=int, help="of weights and data order")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--dry-run", action="store_true", help="say what would happen, and why not by itself")
        what.add_argument("--follow", action="store_true", help="watch the retraining that is running; start none")
        what.add_argument("--retry", action="store_true", help="go on with the last one, which failed or was cancelled")
        self.add_follow_arguments(parser)

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        campaign = campaign_named(options["campaign"])
        if options["dry_run"]:
            return {"campaign": campaign.name, **outlook(CampaignState(campaign)).to_json()}
        retraining = self._retraining(campaign, options)
        if not options["detach"]:
            self._watch(retraining, inline=options["inline"])
        retraining.refresh_from_db()
        return _result(retraining)

    def _retraining(self, campaign: Campaign, options: dict[str, Any]) -> Retraining:
        if options["follow"]:
            active = active_retraining(campaign)
            if active is None:
                raise RetrainingRefused(f"Campaign `{campaign.name}` is not retraining.")
            return active
        if options["retry"]:
            last = campaign.retrainings.order_by("-number").first()
            if last is None:
                raise RetrainingRefused(f"Campaign `{campaign.name}` has never been retrained: leave --retry out.")
            return retry_retraining(last)
        reason = options["reason"] or f"asked for by {getpass.getuser()} on the command line"
        return start_retraining(campaign, reason=reason, seed=options["seed"])

    def _watch(self, retraining: Retraining, *, inline: bool) -> None:
        """Follow one step's job after the other until the retraining has ended."""
        while True:
            retraining.refresh_from_db()
            if retraining.state in Retraining.FINISHED:
                break
            jobs = Job.objects.filter(key__startswith=step_key(retraining.pk), state__in=Job.ACTIVE)
            job = jobs.order_by("created").first()
            if job is None:
                advance_retraining(retraining)
                time.sleep(0.2)
                continue
            try:
                self.follow(job, inline=inline)
            except Refused:
                retraining.refresh_from_db()
                if retraining.state not in Retraining.FINISHED:
                    raise
        if retraining.state != Retraining.State.DONE:
            raise RetrainingRefused(f"Retraining {retraining.number} {retraining.state}: {retraining.error}")


def _result(retraining: Retraining) -> dict[str, Any]:
    version = getattr(retraining, "model_version", None)
    evaluation = version.evaluations.filter(release=retraining.release, split="test").first() if version else None
    return {
        "campaign": retraining.campaign.name,
        "retraining": retraining.number,
        "state": retraining.state,
        "release": retraining.release.version if retraining.release else None,
        "model_version": version.name if version else None,
        "ap50": evaluation.ap50 if evaluation else None,
        "ap30": evaluation.ap30 if evaluation else None,
        "promoted": retraining.promoted,
        "verdict": retraining.verdict,
    }
