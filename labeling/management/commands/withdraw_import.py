"""`manage.py withdraw_import`: withdraw a label import."""

from argparse import ArgumentParser
from typing import Any

from labeling.errors import BadWithdrawal
from labeling.models import LabelImport
from labeling.services.imports import withdraw_import
from thawloop.core.cli import ThawloopCommand


class Command(ThawloopCommand):
    """Withdraw a label import."""

    help = (
        "Withdraw a label import as a whole: its labels are retired with the reason, its coverage no longer counts. "
        "Nothing is deleted, releases keep what they hold, and the file can be imported again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which import, and why."""
        parser.add_argument("number", type=int, metavar="IMPORT", help="its number, as import_labels printed it")
        parser.add_argument("--reason", required=True, help="why, e.g. 'wrong coordinate system'")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Withdraw it."""
        found = LabelImport.objects.filter(pk=options["number"]).first()
        if found is None:
            raise BadWithdrawal(f"There is no import {options['number']}: /api/imports/ and the admin list them.")
        row = withdraw_import(found, reason=options["reason"])
        return {"import": row.pk, "file": row.file_name, "retired": row.counts["retired"]}

    def show(self, result: dict[str, Any]) -> None:
        """One line."""
        self.stdout.write(
            f"Import {result['import']} ({result['file']}) withdrawn: {result['retired']:,} labels retired."
        )
