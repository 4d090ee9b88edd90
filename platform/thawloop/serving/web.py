"""gunicorn's configuration for the web pages: `gunicorn --config python:thawloop.serving.web --bind ADDRESS:PORT`.

gunicorn reads the names in small letters below as its settings and hooks.
"""

import os
import shutil
import tempfile
from typing import Any

# Read by prometheus_client when Django imports it, which comes later: requests are counted over all processes.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = _counters = tempfile.mkdtemp(prefix="thawloop-metrics-")

wsgi_app = "thawloop.wsgi:application"
worker_class = "thawloop.serving.buffered_worker.BufferedWorker"
workers = int(os.environ.get("THAWLOOP_WEB_PROCESSES") or 2)
threads = 4
preload_app = True
graceful_timeout = 5
proc_name = "thawloop-web"
control_socket_disable = True  # one socket per account, which a second server would take over


def child_exit(server: Any, worker: Any) -> None:
    """Drop the gauges of a process that ended; its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the counters."""
    shutil.rmtree(_counters, ignore_errors=True)
