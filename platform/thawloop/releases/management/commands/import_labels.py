"""`manage.py import_labels`"""

from typing import Any

from django.core.management.base import CommandParser

from labeling.models import LabelImport
from thawloop.campaigns.models import Split
from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.releases.services import import_labels

COUNTS = ("read", "created", "duplicate", "unchanged", "repaired", "refused", "held_back", "outside", "lost")


class Command(ThawloopCommand):
    help = (
        "Import label files as truth: GeoJSON, GeoPackage, Shapefile, KML, FlatGeobuf, CSV with WKT; plain or zipped. "
        "The same again changes nothing; withdraw_import takes an import back. Files must lie below one of "
        "THAWLOOP_DATA_ROOTS."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="label files")
        parser.add_argument("--campaign", required=True, help="whose truth they become")
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument("--class", dest="landform_class", metavar="NAME", help="what all features are, e.g. RTS")
        kind.add_argument("--class-field", metavar="FIELD", help="attribute that names each feature's class")
        parser.add_argument(
            "--coverage",
            choices=("none", "regions"),
            default="none",
            help="regions: the files hold every landform there is in the campaign's regions (of --split, if given), so "
            "that tiles without one are known to be empty",
        )
        parser.add_argument("--split", action="append", choices=Split.values, help="only labels in these regions")
        parser.add_argument("--region", action="append", metavar="NAME", help="only labels in these regions, by name")
        parser.add_argument("--crs", help="coordinate system of files that do not name theirs, e.g. EPSG:32608")
        parser.add_argument("--layer", help="which layer, where a file has several")
        parser.add_argument("--buffer-points", type=float, metavar="METRES", help="let circles stand for points")
        parser.add_argument(
            "--max-area",
            type=float,
            metavar="KM2",
            help="largest area of one landform; if not given: THAWLOOP_MAX_LANDFORM_KM2 or ten times all regions",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would happen and change nothing")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        campaign = campaign_named(options["campaign"])
        found = [
            import_labels(
                campaign,
                file,
                landform_class=options["landform_class"],
                class_field=options["class_field"],
                coverage=options["coverage"],
                splits=options["split"],
                regions=options["region"],
                crs=options["crs"],
                layer=options["layer"],
                buffer_points=options["buffer_points"],
                max_area=options["max_area"],
                dry_run=options["dry_run"],
            )
            for file in options["files"]
        ]
        return {
            "dry_run": options["dry_run"],
            "files": [_row(item) for item in found],
            "refusals": [{"file": item.file_name, **row} for item in found for row in item.counts["refusals"]],
            "repairs": [{"file": item.file_name, **row} for item in found for row in item.counts["repairs"]],
        }

    def show(self, result: dict[str, Any]) -> None:
        """One line per file, and one for each feature that was refused or repaired."""
        for row in result["files"]:
            if row["nothing_new"]:
                self.stdout.write(f"{row['file']}: nothing new, the same as import {row['import']}")
                continue
            said = ", ".join(f"{row[name]:,} {name.replace('_', ' ')}" for name in COUNTS if row[name])
            number = "dry run" if result["dry_run"] else f"import {row['import']}"
            self.stdout.write(f"{row['file']}: {said} ({number})")
        for row in result["refusals"]:
            self.stdout.write(f"  {row['file']}, feature {row['feature']} {row['reason']}: refused")
        for row in result["repairs"]:
            change = f"area changed by {row['area_change']:+.2%}"
            self.stdout.write(f"  {row['file']}, feature {row['feature']}: {row['what']} repaired, {change}")


def _row(item: LabelImport) -> dict[str, Any]:
    facts = {"import": item.pk, "file": item.file_name, "nothing_new": item.already_there}
    return facts | {name: item.counts[name] for name in COUNTS}
