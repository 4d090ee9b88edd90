"""`manage.py predict`."""

from argparse import ArgumentParser
from typing import Any

from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.registry.errors import ModelRefused
from thawloop.registry.services import request_predictions


class Command(ThawloopCommand):
    """Predict a campaign's tiles."""

    help = (
        "Have a model (the campaign's champion, unless --model names another) predict all tiles of a campaign that it "
        "has not predicted yet. Stopped anywhere, the same command goes on with the tiles that are left."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--campaign", required=True, help="name of the campaign")
        parser.add_argument("--model", help="name of a model version, e.g. peel-v3; default: the champion")
        self.add_follow_arguments(parser)

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        campaign = campaign_named(options["campaign"])
        version = None
        if name := options["model"]:
            version = campaign.model_versions.filter(name=name).first()
            if version is None:
                known = ", ".join(campaign.model_versions.values_list("name", flat=True)) or "none yet"
                raise ModelRefused(f"Campaign `{campaign.name}` has no model version `{name}`; it has {known}.")
        job = self.follow(request_predictions(campaign, version), inline=options["inline"], detach=options["detach"])
        return {"campaign": campaign.name, "job": job.pk, "state": job.state, **(job.result or {})}
