"""`manage.py serve`: everything for real use on this machine."""

import os
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from devstack.paths import REPOSITORY
from devstack.serve import Serve
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused


class Command(ThawloopCommand):
    help = (
        "Start everything on this machine and keep it running until Ctrl-C: PostGIS, Redis, Label Studio, web pages, "
        "workers, reconciler, ML backend. Data stays in var/serve. Servers named by DATABASE_URL, REDIS_URL, "
        "LABEL_STUDIO_URL are used instead of private ones."
    )

    folder = "serve"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--port", type=int, help="port of the web pages (default: THAWLOOP_PORT, else any free one)"
        )
        parser.add_argument("--labelstudio-port", type=int, help="port of Label Studio (default: any free one)")
        parser.add_argument(
            "--show-passwords", action="store_true", help="show passwords also when they were not made just now"
        )
        parser.add_argument(
            "--root", type=Path, default=REPOSITORY / "var" / self.folder, help="folder for data and logs"
        )

    def choices(self, options: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `Serve` that the command line gives."""
        return {
            "port": options["port"] or _port_from_environment(),
            "labelstudio_port": options["labelstudio_port"],
            "report": self._say,
        }

    def run(self, options: dict[str, Any]) -> None:
        serve = Serve(options["root"], **self.choices(options))
        serve.start()
        try:
            table = serve.directory(show_passwords=options["show_passwords"])
            self.stdout.write(f"ThawLoop is running. Logs: {serve.stack.logs}. Ctrl-C stops it.\n{table}")
            self.stdout.flush()
            serve.wait()
            self.stdout.write("Stopping ...")
        finally:
            serve.stop()

    def _say(self, line: str) -> None:
        self.stdout.write(f"  {line}")
        self.stdout.flush()  # also into a pipe at once


def _port_from_environment() -> int | None:
    text = os.environ.get("THAWLOOP_PORT", "")
    if text and not text.isdigit():
        raise Refused(f"THAWLOOP_PORT is {text!r}, which is not a port number: use 1 to 65535.")
    return int(text) if text else None
