"""Reading the log of a training (written by :mod:`ml_backend.detector.training.log`)."""

from __future__ import annotations

import csv
import io
import math
from datetime import datetime
from pathlib import Path

from contracts.checkpoint import LOG_FOLDER
from ml_backend.detector.errors import CheckpointError

TABLES = ("training", "validation")
LARGEST_FILE = 1 << 28  # bytes; more than a million steps need
Row = dict[str, str]
Table = dict[str, list[float]]


def read_rows(file: Path, *, strict: bool = True) -> list[Row]:
    """The complete rows of a log's table, by increasing step; none if there is no file.

    Args:
        file: CSV file of the table.
        strict: whether to refuse a damaged file; otherwise it is read up to the damage.

    Raises:
        CheckpointError: the file is not such a table.
    """
    rows: list[Row] = []
    try:
        if not file.is_file():
            return []
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError("too large")
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a process that was killed may have left the beginning of a row
        for row in csv.DictReader(io.StringIO(whole), strict=True):
            for name, value in row.items():
                if name not in ("step", "time") and value:
                    float(value)
            datetime.fromisoformat(row["time"])
            if int(row["step"]) <= (int(rows[-1]["step"]) if rows else 0):
                raise ValueError("steps do not increase")
            rows.append(row)
    except (csv.Error, OSError, KeyError, TypeError, ValueError):
        if strict:
            raise CheckpointError(
                f"{file} is not a valid training log: remove it to continue without its contents, or copy it again."
            ) from None
    return rows


def read_log(folder: Path) -> dict[str, Table]:
    """The log in the folder of a training or checkpoint: per table and column its values, NaN where a row has none.

    Raises:
        CheckpointError: see :func:`read_rows`.
    """
    found = {}
    for table in TABLES:
        rows = read_rows(folder / LOG_FOLDER / f"{table}.csv")
        names = [name for name in (rows[0] if rows else ()) if name != "time"]
        found[table] = {name: [float(row[name] or math.nan) for row in rows] for name in names}
    return found
