"""`manage.py sync`: exchange tasks and annotations with Label Studio now."""

from argparse import ArgumentParser
from typing import Any

from labeling.services.sync import new_project, sync
from thawloop.core.cli import ThawloopCommand


class Command(ThawloopCommand):
    """Exchange tasks and annotations with Label Studio."""

    help = (
        "Fetch from Label Studio what annotators did since the last time, and put there the tasks that wait. The "
        "reconciler does the same every half minute; run it by hand when you do not want to wait."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which campaign, and how thoroughly."""
        parser.add_argument("--campaign", required=True, help="name of the campaign")
        parser.add_argument("--full", action="store_true", help="compare every task, also those that did not change")
        parser.add_argument(
            "--new-project",
            action="store_true",
            help="make a new project for a campaign whose project was deleted in Label Studio",
        )

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Sync the campaign."""
        campaign = self.get_campaign(options["campaign"])
        if options["new_project"]:
            new_project(campaign)
        return {"campaign": campaign.name, **vars(sync(campaign, full=options["full"]))}
