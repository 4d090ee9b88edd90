"""`manage.py create_campaign FILE.toml`."""

from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from thawloop.catalog.files import canonical_uri
from thawloop.catalog.models import Scene
from thawloop.core.cli import ThawloopCommand
from thawloop.setup.reading import CampaignSpec, parse_campaign_file
from thawloop.setup.services import set_up_campaign


class Command(ThawloopCommand):
    """Set up a campaign from a file."""

    help = (
        "Set up a campaign from a TOML file: its rasters, grid, regions, classes, true labels and settings. "
        "docs/campaign-file.md describes the file. Running it again with a file that has grown adds what is new."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """One file."""
        parser.add_argument("file", metavar="FILE.toml", type=Path, help="the campaign file")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Parse the file, set the campaign up, and say what is there now."""
        spec = parse_campaign_file(options["file"])
        with self.progress(f"Setting up {spec.name}") as report:
            report(0.1, "reading rasters")
            made = set_up_campaign(spec)
        return {
            "campaign": made.campaign.name,
            "created": made.created,
            "scenes": made.scenes,
            "tiles": made.tiles,
            "truth": made.truth,
            "warnings": [f"{uri}: {text}" for uri, texts in _warnings(spec) for text in texts],
        }


def _warnings(spec: CampaignSpec) -> Iterable[tuple[str, list[str]]]:
    """What looks wrong in the rasters that the file names, by raster."""
    names = [modality.name for modality in spec.modalities]
    uris = {canonical_uri(raster.path) for modality in spec.modalities for raster in modality.files}
    scenes = Scene.objects.filter(modality__name__in=names, uri__in=uris).exclude(warnings=[])
    return scenes.order_by("id").values_list("uri", "warnings")
