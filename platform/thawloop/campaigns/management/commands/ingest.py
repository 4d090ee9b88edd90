"""`manage.py ingest`: register rasters as scenes."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import fields
from datetime import date
from typing import Any

from django.core.management.base import CommandParser
from django.db import transaction

from thawloop.campaigns.selectors import campaign_named, drawn_on
from thawloop.catalog.models import Modality, Scene
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import SceneDraft, create_tiles, ensure_builtin, prepare_scene, store_scenes
from thawloop.core.cli import ThawloopCommand


class Command(ThawloopCommand):
    help = (
        "Register rasters as scenes of a modality. All files are checked first: either all of them are registered, or "
        "none. A file that is registered already is left as it is, so that the command can be run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="raster below a data root, or s3:// URI")
        parser.add_argument(
            "--modality",
            required=True,
            help="what the rasters hold: a defined modality or a built-in, e.g. rgb or dem",
        )
        parser.add_argument("--date", required=True, type=_date, metavar="YYYY-MM-DD", help="when the ground was seen")
        parser.add_argument(
            "--band-indexes",
            type=_bands,
            metavar="3,2,1",
            help="bands of the files, from 1, in the modality's order (default: found by name, colour or count)",
        )
        parser.add_argument("--scale", type=float, help="value = raw * scale + offset (default: as the file declares)")
        parser.add_argument("--offset", type=float, help="see --scale")
        parser.add_argument("--nodata", type=float, help="raw value that means no data, instead of the files' own")
        parser.add_argument("--mask-band", type=int, help="band that is 0 where there is no data")
        parser.add_argument(
            "--alpha",
            choices=Scene.Alpha.values,
            help="what the file's own alpha band or mask is (default: validity, unless an alpha band hides a picture)",
        )
        parser.add_argument(
            "--color-table", choices=["ignored"], help="read the numbers of a file with a colour table as they are"
        )
        parser.add_argument("--provider", default="", help="who made the rasters")
        parser.add_argument("--licence", default="", help="on what terms they may be used")
        parser.add_argument("--campaign", help="also make the tiles that this campaign's regions now have rasters for")
        parser.add_argument("--dry-run", action="store_true", help="check everything, change nothing")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Check all files, then store them and make tiles in one transaction; a dry run rolls it back."""
        campaign = campaign_named(options["campaign"]) if options["campaign"] else None
        with transaction.atomic():
            modality = ensure_builtin(options["modality"])
            drafts = self._prepare(modality, options)
            scenes = store_scenes(drafts)
            tiles = _make_tiles(campaign) if campaign else None
            result = {
                "modality": modality.name,
                "dry_run": options["dry_run"],
                "registered": sum(created for _, created in scenes),
                "already_registered": sum(not created for _, created in scenes),
                "scenes": [
                    {
                        "id": None if options["dry_run"] and created else scene.pk,
                        "uri": scene.uri,
                        "new": created,
                        "size": f"{scene.width} x {scene.height}",
                        "bands": ",".join(map(str, scene.band_indexes)),
                        "metres_per_pixel": round(scene.pixel_size, 3),
                        "scale": scene.scale,
                        "offset": scene.offset,
                        "alpha": scene.alpha,
                        "valid_share": None if scene.valid_share is None else round(scene.valid_share, 4),
                        "notes": scene.notes,
                        "warnings": scene.warnings,
                    }
                    for scene, created in scenes
                ],
            }
            if tiles is not None:
                result["tiles_made"] = tiles
            transaction.set_rollback(options["dry_run"])
        return result

    def show(self, result: dict[str, Any]) -> None:
        """One line per file, then what it comes to."""
        for scene in result["scenes"]:
            mark, pixels = "new " if scene["new"] else "same", f"{scene['metres_per_pixel']:g} m"
            valid = "" if scene["valid_share"] is None else f", {scene['valid_share']:.1%} valid"
            self.stdout.write(f"{mark}  {scene['uri']} ({scene['size']} px of {pixels}, bands {scene['bands']}{valid})")
            for note in scene["notes"]:
                self.stdout.write(f"      {note}")
            for warning in scene["warnings"]:
                self.stdout.write(self.style.WARNING(f"      Warning: {warning}"))
        count, known = result["registered"], result["already_registered"]
        done = "Would register" if result["dry_run"] else "Registered"
        text = f"{done} {count} scene{'' if count == 1 else 's'} of {result['modality']}"
        text += f"; {known} registered already" if known else ""
        text += f"; {result['tiles_made']} new tiles" if "tiles_made" in result else ""
        self.stdout.write(f"{text}.")

    def _prepare(self, modality: Modality, arguments: dict[str, Any]) -> list[SceneDraft]:
        files = arguments["files"]
        options = SceneOptions(**{field.name: arguments[field.name] for field in fields(SceneOptions)})
        with self.progress("Checking") as report:
            return [
                prepare_scene(
                    uri,
                    modality=modality,
                    acquired=arguments["date"],
                    options=options,
                    progress=_share(report, number, len(files), uri),
                )
                for number, uri in enumerate(files)
            ]


def _share(report: Callable[[float, str], None], number: int, total: int, uri: str) -> Callable[[int, int], None]:
    """The progress of one file as a share of all."""
    name = uri.rsplit("/", 1)[-1]
    return lambda done, size: report((number + done / max(size, 1)) / total, name)


def _make_tiles(campaign: Any) -> int:
    """Tiles of the campaign's regions that the modality people draw on now covers (any modality, if none is named)."""
    return sum(
        create_tiles(
            campaign.grid,
            region,
            period=campaign.period,
            period_start=campaign.period_start,
            period_end=campaign.period_end,
            min_coverage_by=drawn_on(campaign),
        )
        for region in campaign.regions.order_by("name")
    )


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a date: write YYYY-MM-DD, e.g. 2021-08-21") from error


def _bands(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a list of bands: write numbers with commas, e.g. 3,2,1") from error
