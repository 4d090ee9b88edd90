"""`manage.py release`"""

from typing import Any

from django.core.management.base import CommandParser

from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused
from thawloop.core.storage import artifact
from thawloop.releases.services import freeze_release, materialise, verify


class Command(ThawloopCommand):
    help = (
        "Freeze everything labelled now into a versioned dataset and write its files. If nothing changed since the "
        "last release, that one is shown (and its files are written, should they be missing)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--campaign", required=True, help="whose labels to freeze")
        parser.add_argument("--notes", default="", help="what people should know about this release")
        parser.add_argument("--verify", action="store_true", help="also compare every file with the manifest")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        release = freeze_release(campaign_named(options["campaign"]), notes=options["notes"])
        with self.progress(f"Release {release.version}") as report:
            materialise(release, progress=report)
        problems = verify(release) if options["verify"] else []
        if problems:
            more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
            raise Refused(f"Release {release} is damaged: {' '.join(problems[:5])}{more}")
        return {
            "release": f"{release.campaign.name}/{release.version}",
            "path": str(artifact(release.path)),
            "tiles": release.counts["tiles"],
            "labels": release.counts["labels"],
            "left_out": release.counts["left_out"],
            "manifest_sha256": release.manifest_checksum,
        }
