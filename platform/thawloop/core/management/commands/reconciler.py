"""`manage.py reconciler`: the process that completes what queues and webhooks missed."""

import signal
import threading
from typing import Any

from thawloop.core import reconciler
from thawloop.core.cli import ThawloopCommand


class Command(ThawloopCommand):
    help = "Keep completing what workers, queues and webhooks missed, until stopped (SIGTERM or Ctrl-C)."

    def run(self, options: dict[str, Any]) -> None:
        stop = threading.Event()
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: stop.set())
        threading.Thread(target=reconciler.show_presence, args=(stop,), daemon=True).start()
        reconciler.run_forever(stop)
