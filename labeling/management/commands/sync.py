"""`manage.py sync`: exchange tasks and annotations with Label Studio now."""

from argparse import ArgumentParser
from typing import Any

from labeling.labelstudio.sync import new_project, sync
from thawloop.campaigns.selectors import campaign_named
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
            help="leave the campaign's project and make a new one: it was deleted, its number is somebody else's now, "
            "or it holds less than it did, as after Label Studio's database was restored from a backup",
        )
        parser.add_argument(
            "--accept-removals",
            type=int,
            metavar="N",
            help="so many tasks and annotations were deleted in Label Studio on purpose: the number that a sync named "
            "when it stopped to ask",
        )

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Sync the campaign."""
        campaign = campaign_named(options["campaign"])
        if options["new_project"]:
            new_project(campaign)
        report = sync(campaign, full=options["full"], accept_removals=options["accept_removals"])
        return {"campaign": campaign.name, **vars(report)}
