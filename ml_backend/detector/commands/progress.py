"""Progress on a terminal."""

from __future__ import annotations

import sys
import time


class Bar:
    """Progress with the time left: one moving line on a terminal, a line now and then elsewhere, nothing for JSON."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()
        self._first: float | None = None

    def __call__(self, share: float, text: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = share, now  # a resumed training starts further on
        if self._silent or (not self._terminal and now - self._shown < 10 and share < 1):
            return
        self._shown = now
        done = share - self._first
        left = f"{(now - self._started) * (1 - share) / done:.0f} s left" if done > 0 else ""
        line = f"{share:4.0%} {text}  {left}"
        print(
            f"\r\033[K{line}" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Leave the moving line."""
        if self._terminal and not self._silent:
            print(file=sys.stderr)
