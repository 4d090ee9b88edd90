"""The log of a training: a row per step and a row per evaluation, as CSV and as TensorBoard events.

::

    log/training.csv     every loss by part and stage, learning rate, gradient norm, seconds, memory: one row per step
    log/validation.csv   the metrics of the validation split: one row per evaluation
    log/events.*         both for TensorBoard (``tensorboard --logdir OUT``)

The CSV files are the truth. They are on the disk before a resume state says that their steps are done; what a killed
process wrote after its last state is dropped when the training goes on, and the events are written anew from them. So
the log of a training that was killed anywhere has neither gaps nor doubled steps.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.checkpoint import LOG_FOLDER
from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.evaluation.names import METRICS
from ml_backend.detector.history import Row, read_rows

STAGES = 3
LOSSES = (
    "loss_rpn_cls",
    "loss_rpn_bbox",
    *(f"s{stage}.loss_{part}" for stage in range(STAGES) for part in ("cls", "bbox", "mask")),
)
COLUMNS = {
    "training": (
        *("step", "time", "seconds", "step_seconds", "learning_rate", "gradient_norm", "memory_mb", "loss"),
        *LOSSES,
    ),
    "validation": ("step", "time", "seconds", *METRICS),
}


class TrainingLog:
    """The log of one training, which only its first process keeps.

    Args:
        folder: of the training.
        step: the last one that is done; rows of later ones are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG_FOLDER
        self.path.mkdir(exist_ok=True)
        self._tables = {name: _Table(self.path / f"{name}.csv", columns, step) for name, columns in COLUMNS.items()}
        self._events = _open_events(self.path)
        for name, table in self._tables.items():
            for row in table.rows:
                self._tell(name, row)

    def add(self, table: str, step: int, **values: float | None) -> None:
        """Write a row, at once.

        Args:
            table: ``training`` or ``validation``.
            step: steps done; a second row of one step is left out, since it says the same.
            values: by column; what has none stays empty.
        """
        row = self._tables[table].add(step, values)
        if row:
            self._tell(table, row)

    def keep(self) -> None:
        """See that all rows are on the disk, whatever happens to the machine."""
        for table in self._tables.values():
            table.keep()

    def close(self) -> None:
        """Write the rest of the events."""
        for table in self._tables.values():
            table.close()
        if self._events:
            self._events.close()

    def _tell(self, table: str, row: Row) -> None:
        if not self._events:
            return
        when = datetime.fromisoformat(row["time"]).timestamp()
        for name, text in row.items():
            if text and name not in ("step", "time"):
                group = "loss" if "loss" in name else table
                self._events.add_scalar(f"{group}/{name}", float(text), int(row["step"]), walltime=when)


class _Table:
    """A CSV file that grows by a row at a time."""

    def __init__(self, file: Path, columns: Sequence[str], step: int) -> None:
        self.columns = columns
        self.rows = [row for row in read_rows(file, strict=False) if int(row["step"]) <= step]
        self._last = int(self.rows[-1]["step"]) if self.rows else 0
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        replace_file(file, text.getvalue().encode())
        self._stream = file.open("a", encoding="utf-8", newline="", buffering=1)
        self._writer = csv.DictWriter(self._stream, columns, restval="", lineterminator="\n")

    def add(self, step: int, values: Mapping[str, float | None]) -> Row | None:
        if step <= self._last:
            return None
        self._last = step
        numbers = {name: f"{value:.7g}" for name, value in values.items() if value is not None}
        row = {"step": str(step), "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **numbers}
        self._writer.writerow(row)
        return row

    def keep(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()


def _open_events(folder: Path) -> Any:
    """A fresh writer of TensorBoard events; None in an installation from before ThawLoop needed one."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    for file in folder.glob("events.*"):
        file.unlink()
    return SummaryWriter(str(folder), flush_secs=10)
