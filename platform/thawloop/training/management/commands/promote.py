"""`manage.py promote`."""

from argparse import ArgumentParser
from typing import Any

from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.registry.errors import ModelRefused
from thawloop.registry.models import ModelVersion
from thawloop.registry.services import promote


class Command(ThawloopCommand):
    """Make a model version champion by hand."""

    help = "Make a model version its campaign's champion, whatever the gate said, and have it predict the tiles."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="name of the model version, e.g. peel-v3")
        parser.add_argument("--campaign", help="name of the campaign; only to be sure that it is the right one")
        parser.add_argument("--reason", required=True, help="why, for the record")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        version = ModelVersion.objects.select_related("campaign").filter(name=options["model"]).first()
        if version is None:
            raise ModelRefused(f"There is no model version `{options['model']}`; the models page lists them.")
        if options["campaign"] and version.campaign != campaign_named(options["campaign"]):
            raise ModelRefused(f"{version.name} belongs to campaign `{version.campaign.name}`.")
        promotion = promote(version, reason=options["reason"])
        previous = promotion.previous.name if promotion.previous else None
        return {"campaign": version.campaign.name, "champion": version.name, "previous": previous}
