"""A worker process."""

from typing import Any

from django.core.management.base import CommandParser

from thawloop.core.cli import ThawloopCommand
from thawloop.core.jobs.worker import work
from thawloop.core.models import QUEUES


class Command(ThawloopCommand):
    help = "Work on the jobs of one queue until stopped (SIGTERM or Ctrl-C); run as many as you like."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--queue", choices=QUEUES, default="default", help="whose jobs to work on")
        parser.add_argument("--burst", action="store_true", help="stop when the queue is empty")

    def run(self, options: dict[str, Any]) -> None:
        work(options["queue"], burst=options["burst"])
