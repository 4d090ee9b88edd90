"""`manage.py demo`: servers up, the whole loop on generated scenes or somebody's own data, a table at the end."""

import json
import os
import signal
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from rich.console import Console

from demo.generated import generated_campaign
from demo.screen import Screen
from demo.summary import table_of
from devstack.paths import REPOSITORY
from devstack.serve import Serve
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused
from thawloop.setup.reading import parse_campaign_file
from thawloop.setup.spec import CampaignSpec


class Command(ThawloopCommand):
    """The guided run."""

    help = (
        "Run the whole loop for real: servers, workers, Label Studio, simulated annotators, retraining. On generated "
        "scenes, or on your own data described in a campaign file whose held-back labels play the annotators. "
        "A second run goes on where the first one ended."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """What to run on, and for how long."""
        parser.add_argument("--campaign", type=Path, metavar="FILE.toml", help="your own data (docs/campaign-file.md)")
        parser.add_argument("--rounds", type=int, help="rounds to do (default: the file's, 3)")
        parser.add_argument("--headless", action="store_true", help="exit when done instead of leaving the servers up")
        parser.add_argument(
            "--show-passwords", action="store_true", help="show passwords also when they were not made just now"
        )
        parser.add_argument("--root", type=Path, default=REPOSITORY / "var" / "demo", help="folder for data and logs")
        parser.add_argument("--port", type=int, help="port of the web pages")
        parser.add_argument("--labelstudio-port", type=int, help="port of Label Studio")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Start the servers, run the rounds in a process of their own, and leave the servers up until Ctrl-C."""
        screen = Screen()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # be asked to end like by Ctrl-C: servers are stopped
        root = options["root"].absolute()
        file = self._campaign_file(options["campaign"], root, screen)
        spec = parse_campaign_file(file)
        _refuse_without_annotators(spec)
        serve = Serve(
            root,
            port=options["port"],
            labelstudio_port=options["labelstudio_port"],
            data_roots=(root / "scenes", *spec.local_folders),
            report=lambda line: screen.say(f"  {line}"),
        )
        screen.heading("Servers")
        serve.start()
        try:
            summary_file = root / "summary.json"
            summary_file.unlink(missing_ok=True)  # an earlier run's
            code = self._rounds(file, summary_file, options["rounds"], serve)
            summary: dict[str, Any] = json.loads(summary_file.read_text()) if summary_file.exists() else {}
            if not options["json"]:
                self.show(summary)
            table = serve.directory(show_passwords=options["show_passwords"])
            screen.say(f"\n{table}\nLogs: {serve.stack.logs}")
            if code:
                raise SystemExit(code)
            if not options["headless"]:
                screen.say("Everything stays up until Ctrl-C.")
                serve.wait()
            return summary if options["json"] else {}
        finally:
            serve.stop()

    def show(self, result: dict[str, Any]) -> None:
        """The table, and where the results are."""
        if not result:
            return
        console = Console(file=self.stdout, highlight=False, soft_wrap=True)  # type: ignore[arg-type]  # is file-like
        console.print()
        console.print(table_of(result["rounds"]))
        if result["model_version"]:
            console.print(f"model {result['model_version']}, release {result['release']}", markup=False)
        else:
            console.print("no model yet", markup=False)
        console.print(f"the loop took {result['seconds']:.0f} s", markup=False)

    def _campaign_file(self, given: Path | None, root: Path, screen: Screen) -> Path:
        if given is not None:
            return given.absolute()
        with screen.step("Scenes are generated"):
            return generated_campaign(root / "scenes")

    def _rounds(self, file: Path, summary: Path, rounds: int | None, serve: Serve) -> int:
        """In a process that knows the servers' addresses from its environment; its exit code, 0 for success."""
        command = [sys.executable, "-m", "demo", str(file), "--summary", str(summary)]
        command += [] if rounds is None else ["--rounds", str(rounds)]
        environment = {**os.environ, **serve.environment, "THAWLOOP_LOG_LEVEL": "WARNING"}
        child = subprocess.Popen(command, cwd=REPOSITORY, env=environment)
        try:
            return child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()


def _refuse_without_annotators(spec: CampaignSpec) -> None:
    """Before anything is started."""
    held_back = [file for labels in spec.labels if labels.role == "simulate" for file in labels.files]
    if not held_back:
        raise Refused(
            f"{spec.source}: no label is held back to play the annotators: add a `[[labels]]` table with "
            '`role = "simulate"`, or set the campaign up for real annotators with `manage.py create_campaign`.'
        )
    if missing := [file for file in held_back if not file.exists()]:
        raise Refused(f"{spec.source}: the label file {missing[0]} does not exist; correct `files`.")
