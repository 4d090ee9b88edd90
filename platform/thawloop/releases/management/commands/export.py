"""`manage.py export`"""

from typing import Any

from django.core.management.base import CommandParser

from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.releases.exports import EXPORTERS
from thawloop.releases.selectors import find_release
from thawloop.releases.services import export


class Command(ThawloopCommand):
    help = "Write a release as a dataset directory, an ordinary COCO set, a GeoPackage or GeoJSON."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("release", metavar="RELEASE", help="CAMPAIGN/1.0.0, or with --campaign: 1.0.0 or latest")
        parser.add_argument("--campaign", help="the release's campaign")
        parser.add_argument("--format", required=True, metavar="F", help=f"one of {', '.join(sorted(EXPORTERS))}")
        parser.add_argument("--out", required=True, metavar="PATH", help="file or folder; .zip makes an archive")
        parser.add_argument("--force", action="store_true", help="replace what is at PATH")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        campaign = campaign_named(options["campaign"]) if options["campaign"] else None
        release = find_release(options["release"], campaign=campaign)
        with self.progress(f"Export {release.version}") as report:
            path = export(release, options["format"], options["out"], force=options["force"], progress=report)
        return {"release": f"{release.campaign.name}/{release.version}", "format": options["format"], "path": str(path)}
