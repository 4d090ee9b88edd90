"""The process that mends what queues and webhooks missed."""

import signal
import threading
from typing import Any

from django.core.management.base import CommandParser

from thawloop.core import reconciler
from thawloop.core.cli import ThawloopCommand


class Command(ThawloopCommand):
    help = "Keep mending what workers, queues and webhooks missed, until told to stop (SIGTERM or Ctrl-C)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="do everything once, say what was done, and end")

    def run(self, options: dict[str, Any]) -> dict[str, Any] | None:
        if options["once"]:
            return {each.name: reconciler.run_once(each) for each in reconciler.registered_reconcilers()}
        stop = threading.Event()
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: stop.set())
        threading.Thread(target=reconciler.show_presence, args=(stop,), daemon=True).start()
        reconciler.run_forever(stop)
        return None
