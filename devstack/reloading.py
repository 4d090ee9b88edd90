"""Restarts our processes when a source file of the product changes.

`watchfiles` asks the kernel (inotify) and costs nothing while nothing changes. Django's own autoreload would look at
every file once a second in each process, and knows neither workers nor the ML backend; gunicorn's is not for
applications that are loaded before its processes part.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import watchfiles

from devstack.paths import REPOSITORY

SOURCES = tuple(REPOSITORY / name for name in ("contracts", "platform", "labeling", "ml_backend", "migrations"))
SUFFIXES = (".py", ".html")  # templates are kept in memory; styles and scripts are read anew for each request


class Reloader:
    """Watches folders in a background thread until `stop()`.

    Args:
        restart: Called once for a bundle of changes (files that are saved together).
        report: Called with one line that names what changed.
        folders: Where sources are.
    """

    def __init__(
        self,
        restart: Callable[[], None],
        report: Callable[[str], None],
        folders: Sequence[Path] = SOURCES,
    ) -> None:
        self._restart = restart
        self._report = report
        self._folders = folders
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reloader", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; returns when no restart is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        def is_source(_change: watchfiles.Change, path: str) -> bool:
            return path.endswith(SUFFIXES)

        # Reported 0.4 s after a change (the default is 1.6 s), or when files have been quiet for 50 ms.
        for changes in watchfiles.watch(
            *self._folders, watch_filter=is_source, debounce=400, stop_event=self._stopping, raise_interrupt=False
        ):
            names = sorted({Path(path).name for _change, path in changes})
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            self._report(f"{', '.join(names[:3])}{more} changed: restarting")
            self._restart()
