"""Progress of long work: how it is reported, and how a terminal shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Progress = Callable[[float, str], None]  # called with the share done (0..1) and a line of text


def silent(share: float, text: str) -> None:
    """Report nothing."""


class ProgressBar:
    """Progress with the time left: one moving line on a terminal, a line now and then elsewhere, nothing for JSON."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()
        self._first: float | None = None

    def __call__(self, share: float, text: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = share, now  # a resumed training does not start at 0
        if self._silent or (not self._terminal and now - self._shown < 10 and share < 1):
            return
        self._shown = now
        done = share - self._first
        left = f"{(now - self._started) * (1 - share) / done:.0f} s left" if done > 0 else ""
        line = f"{share:4.0%} {text}  {left}"
        sys.stderr.write(f"\r\033[K{line}" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """End the moving line."""
        if self._terminal and not self._silent:
            sys.stderr.write("\n")
