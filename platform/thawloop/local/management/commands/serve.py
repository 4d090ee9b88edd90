"""`manage.py serve`: everything for real use on this machine."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from thawloop.local.errors import LocalServiceError
from thawloop.local.paths import REPOSITORY
from thawloop.local.serve import Serve


class Command(BaseCommand):
    """Starts Serve, prints where to go, waits."""

    help = (
        "Start everything on this machine and keep it running until Ctrl-C: PostGIS, Redis, Label Studio, web pages, "
        "workers, reconciler, ML backend. Data stays in var/serve. Servers named by DATABASE_URL, REDIS_URL, "
        "LABEL_STUDIO_URL are used instead of private ones."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Ports and folder."""
        port = os.environ.get("THAWLOOP_PORT")
        parser.add_argument("--port", type=int, default=int(port) if port else None, help="port of the web pages")
        parser.add_argument("--labelstudio-port", type=int, help="port of Label Studio")
        parser.add_argument(
            "--root", type=Path, default=REPOSITORY / "var" / "serve", help="folder for data, secrets and logs"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Start, print the table, wait, stop."""
        serve = Serve(
            options["root"],
            port=options["port"],
            labelstudio_port=options["labelstudio_port"],
            report=lambda line: self.stdout.write(f"  {line}"),
        )
        try:
            serve.start()
        except LocalServiceError as error:
            raise CommandError(str(error)) from error
        try:
            self.stdout.write(f"ThawLoop is running. Logs: {serve.stack.logs}. Ctrl-C stops it.\n{directory(serve)}")
            self.stdout.flush()
            serve.wait()
            self.stdout.write("Stopping ...")
        finally:
            serve.stop()


def directory(serve: Serve) -> str:
    """Where to go and how to get in, as a table."""
    rows = [("", "address", "user", "password")]
    rows += [(name, url, *serve.credentials.get(name, ("", ""))) for name, url in serve.urls.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
