"""The log of a training: a row per step and a row per evaluation, as CSV and as TensorBoard events.

::

    log/training.csv     every loss by part and stage, learning rate, gradient norm, seconds, memory: one row per step
    log/validation.csv   the metrics of the validation split: one row per evaluation
    log/events.*         both for TensorBoard (``tensorboard --logdir OUT``)

The CSV files are authoritative. They are synced to disk before a resume state is saved; rows that a killed process
wrote after its last state are dropped when the training is resumed, and the events are rewritten from the CSV files. So
the log has neither gaps nor duplicate steps, wherever a training was killed.
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
    """The log of one training, written by its first process only.

    Args:
        folder: of the training.
        step: last step of the resume state; later rows are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG_FOLDER
        self.path.mkdir(exist_ok=True)
        self._tables = {name: _Table(self.path / f"{name}.csv", columns, step) for name, columns in COLUMNS.items()}
        self._events = _open_events(self.path)
        for name, table in self._tables.items():
            for row in table.rows:
                self._add_event(name, row)

    def add(self, table: str, step: int, **values: float | None) -> None:
        """Write a row.

        Args:
            table: ``training`` or ``validation``.
            step: steps done; a second row of the same step is dropped, as it is equal.
            values: by column; None leaves a cell empty.
        """
        row = self._tables[table].add(step, values)
        if row:
            self._add_event(table, row)

    def sync(self) -> None:
        """Sync all rows to disk."""
        for table in self._tables.values():
            table.sync()

    def close(self) -> None:
        """Close the files."""
        for table in self._tables.values():
            table.close()
        if self._events:
            self._events.close()

    def _add_event(self, table: str, row: Row) -> None:
        if not self._events:
            return
        when = datetime.fromisoformat(row["time"]).timestamp()
        for name, text in row.items():
            if text and name not in ("step", "time"):
                group = "loss" if "loss" in name else table
                self._events.add_scalar(f"{group}/{name}", float(text), int(row["step"]), walltime=when)


class _Table:
    """A CSV file to which rows are appended."""

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

    def sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()


def _open_events(folder: Path) -> Any:
    """A new writer of TensorBoard events; None if tensorboardX is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    for file in folder.glob("events.*"):
        file.unlink()
    return SummaryWriter(str(folder), flush_secs=10)
