"""`python -m ml_backend.server`: serve stored predictions to Label Studio."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication

from ml_backend.server import MAX_BODY_BYTES
from thawloop.serving.buffered_worker import BufferedWorker


class _Worker(BufferedWorker):
    """A request is one page of tasks, hence the larger limit."""

    max_body_bytes = MAX_BODY_BYTES


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn with one process and a few threads: the work is one database query."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        """Take the options given, not gunicorn's own command line."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        """Set Django up in the serving process."""
        from ml_backend.server.wsgi import application

        return application


def main() -> None:
    """Parse the command line and serve until stopped."""
    parser = argparse.ArgumentParser(prog="python -m ml_backend.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=9090, help="port to listen on (default: 9090)")
    parser.add_argument("--bind", metavar="fd://N", help="a listening socket to inherit, instead of host and port")
    parser.add_argument("--threads", type=int, default=4, help="requests answered at once (default: 4)")
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]
    options = {"bind": arguments.bind or f"{arguments.host}:{arguments.port}", "workers": 1}
    options |= {
        "worker_class": _Worker,
        "graceful_timeout": 5,
        "control_socket_disable": True,
        "threads": arguments.threads,
    }
    _Server(options | {"proc_name": "thawloop-ml-backend"}).run()


if __name__ == "__main__":
    main()
