"""`manage.py acquire`."""

from argparse import ArgumentParser
from typing import Any

from contracts.acquisition import STRATEGIES
from labeling.services import acquire
from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand


class Command(ThawloopCommand):
    """Choose the next tiles to annotate."""

    help = (
        "Choose the tiles of a campaign that are worth annotating next, and hand them to Label Studio: those that the "
        "champion model is most unsure of and that differ most, plus a random control arm. Without a model yet, tiles "
        "are spread over the map."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--campaign", required=True, help="name of the campaign")
        parser.add_argument(
            "--count", type=int, help="tiles in the batch, control arm included; default: the campaign's"
        )
        parser.add_argument("--strategy", choices=STRATEGIES, help="instead of the campaign's strategy")
        parser.add_argument("--seed", type=int, help="instead of the campaign's seed plus the batch's number")
        self.add_follow_arguments(parser)

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        campaign = campaign_named(options["campaign"])
        job = acquire(campaign, count=options["count"], strategy=options["strategy"], seed=options["seed"])
        job = self.follow(job, inline=options["inline"], detach=options["detach"])
        return {"campaign": campaign.name, "job": job.pk, "state": job.state, **(job.result or {})}
