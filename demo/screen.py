"""What the guided run shows while it works: one line per step, and a live progress bar on a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

QUIET_SECONDS = 20.0  # without a terminal, a running step says how far it is so often

StepReport = Callable[[float | None, str], None]


class Screen:
    """Shows progress to a person, on stderr.

    Args:
        console: Where to; stderr if not given.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, markup=False)

    def heading(self, text: str) -> None:
        """The beginning of a round."""
        self._console.print(f"\n{text}", style="bold", markup=False)

    @contextmanager
    def step(self, title: str) -> Iterator[StepReport]:
        """A step that takes a while; yields `report(fraction or None, message)`. The last message ends its line."""
        started = time.monotonic()
        last = ""

        def remember(message: str) -> str:
            nonlocal last
            last = message or last
            return last

        with self._live(title, remember) if self._console.is_terminal else self._quiet(title, remember) as report:
            yield report
        seconds = time.monotonic() - started
        self._console.print(f"  ✓ {title}: {last + ', ' if last else ''}{seconds:.0f} s", markup=False)

    @contextmanager
    def _live(self, title: str, remember: Callable[[str], str]) -> Iterator[StepReport]:
        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn()
        message_column = TextColumn("[dim]{task.fields[message]}")
        with Progress(*columns, message_column, console=self._console, transient=True) as bar:
            task = bar.add_task(title, total=None, message="")

            def report(fraction: float | None, message: str = "") -> None:
                total = None if fraction is None else 1.0
                bar.update(task, total=total, completed=fraction or 0.0, message=remember(message))

            yield report

    @contextmanager
    def _quiet(self, title: str, remember: Callable[[str], str]) -> Iterator[StepReport]:
        self._console.print(f"  · {title} ...", markup=False)
        shown, before = time.monotonic(), ""

        def report(fraction: float | None, message: str = "") -> None:
            nonlocal shown, before
            text = ("" if fraction is None else f"{fraction:4.0%} ") + remember(message)
            if text != before and time.monotonic() - shown > QUIET_SECONDS:
                shown, before = time.monotonic(), text
                self._console.print(f"      {text}", markup=False)

        yield report
