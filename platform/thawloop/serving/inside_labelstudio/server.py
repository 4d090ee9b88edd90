"""Serves Label Studio with gunicorn and our worker for it: one process, threads, its user made on the first start.

Run by the interpreter of Label Studio's environment: `python server.py 127.0.0.1:8080`. `label-studio start` would
serve with Django's development server, and move to another port by itself when its own is taken.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

sys.path.append(str(Path(__file__).resolve().parents[3]))  # where our worker is: this environment has no ThawLoop

THREADS = 8  # a webhook handler that calls back needs a free one


class LabelStudioApplication(BaseApplication):  # type: ignore[misc]
    """Gunicorn around Label Studio's WSGI application, which is loaded inside the worker."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def load_config(self) -> None:
        """Settings of gunicorn."""
        settings = {
            "bind": self._address,
            "workers": int(os.environ.get("THAWLOOP_LABELSTUDIO_WORKERS", "1")),
            "worker_class": "thawloop.serving.buffered_worker.BufferedWorker",
            "threads": THREADS,
            "timeout": 300,
            "graceful_timeout": 5,
            "loglevel": "warning",
            "proc_name": "label-studio",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Iterable[bytes]]:
        """Set Label Studio up, make its user and organisation if there are none, return its application."""
        from label_studio.server import _create_user, _setup_env

        _setup_env()
        from django.core.wsgi import get_wsgi_application
        from django.db import connections

        nothing_given: dict[str, Any] = {"username": None, "password": None, "user_token": None, "quiet_mode": True}
        _create_user(Namespace(**nothing_given, enable_legacy_api_token=True), {})
        connections.close_all()
        return get_wsgi_application()


if __name__ == "__main__":
    LabelStudioApplication(sys.argv[1]).run()
