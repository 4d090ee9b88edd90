"""`manage.py dataset CAMPAIGN.toml --out DIR`: real data as a dataset directory, in one go."""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings

from demo.from_campaign import all_truth, write_campaign_dataset
from devstack.errors import LocalServiceError
from devstack.paths import REPOSITORY
from devstack.stack import LocalStack
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused
from thawloop.setup.reading import parse_campaign_file
from thawloop.setup.spec import CampaignSpec


class Command(ThawloopCommand):
    """From rasters and labels to a dataset directory."""

    help = (
        "Write the rasters and labels that a campaign file describes as a dataset directory, to train and compare "
        "detectors on. All its labels count as truth, also those that would play the annotators in `manage.py demo`. "
        "Without DATABASE_URL, a private PostGIS is started for it and removed afterwards."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """What, and where to."""
        parser.add_argument("file", metavar="CAMPAIGN.toml", type=Path, help="see docs/campaign-file.md")
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
        parser.add_argument("--force", action="store_true", help="replace a dataset that is there")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Here if a database is named; else again in a process that has a private one."""
        file, out = options["file"].absolute(), options["out"].absolute()
        spec = parse_campaign_file(file)
        all_truth(spec)  # refuses before anything is started
        if "DATABASE_URL" not in os.environ:
            return _apart(spec, [str(file), "--out", str(out), *(["--force"] if options["force"] else [])])
        with self.progress(f"Dataset of {spec.name}") as report:
            counts = write_campaign_dataset(spec, out, force=options["force"], report=report)
        return {"dataset": str(out), "splits": [{"split": split, **row} for split, row in counts.items()]}


def _apart(spec: CampaignSpec, words: list[str]) -> dict[str, Any]:
    """Run this command with a database of its own, gone when it is done."""
    # No job is enqueued, so Redis is never asked.
    stack = LocalStack.throwaway(redis_url=settings.REDIS_URL)
    try:
        with stack:
            environment = {
                **os.environ,
                **stack.environment,
                "THAWLOOP_VAR": str(stack.root / "var"),
                "THAWLOOP_ENV_FILE": os.devnull,
                "THAWLOOP_DATA_ROOTS": ",".join(map(str, spec.local_folders)),
                "THAWLOOP_LOG_LEVEL": "WARNING",
            }
            _manage(environment, "migrate", "--verbosity", "0")
            result: dict[str, Any] = json.loads(_manage(environment, "dataset", *words, "--json"))
            return result
    except LocalServiceError as error:
        raise Refused(str(error)) from error


def _manage(environment: dict[str, str], *words: str) -> str:
    """Output of one of our commands; what it says on stderr goes to the person at once."""
    command = [sys.executable, str(REPOSITORY / "manage.py"), *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout
