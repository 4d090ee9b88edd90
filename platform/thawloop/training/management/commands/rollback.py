"""`manage.py rollback`."""

from argparse import ArgumentParser
from typing import Any

from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.registry.services import rollback


class Command(ThawloopCommand):
    """Make the previous champion champion again."""

    help = "Make the champion before the current one champion again, and show annotators its predictions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--campaign", required=True, help="name of the campaign")
        parser.add_argument("--reason", required=True, help="why, for the record")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        promotion = rollback(campaign_named(options["campaign"]), reason=options["reason"])
        previous = promotion.previous.name if promotion.previous else None
        return {"campaign": promotion.campaign.name, "champion": promotion.champion.name, "previous": previous}
