"""The results of windows on disk, until the output is written: so an interrupted prediction can be resumed.

One SQLite file. The results of a batch of windows are one transaction, so a process that dies at any time leaves
complete batches. The file holds a hash of the rasters, settings and weights; with others it is refused. It is locked by
one process at a time, and unlocked when that process ends.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ml_backend.detector.errors import CannotResumeError, FolderInUseError
from ml_backend.detector.inference.results import Detection
from ml_backend.detector.inference.window_result import WindowResult

TABLES = """
CREATE TABLE IF NOT EXISTS origin (identity TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS seen (tile INTEGER, window INTEGER, shown BLOB NOT NULL, PRIMARY KEY (tile, window));
CREATE TABLE IF NOT EXISTS finds (tile INTEGER, score REAL, find TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS best_first ON finds (tile, score DESC);
"""


class Journal:
    """The open file. Batches, tiles and windows are numbers chosen by the caller."""

    def __init__(self, file: Path, identity: Mapping[str, Any], *, resume: bool = True) -> None:
        """Open or create it.

        Args:
            file: path of the SQLite file.
            identity: everything that the results of windows depend on, as JSON.
            resume: False discards its content.

        Raises:
            FolderInUseError: another process is writing it.
            CannotResumeError: it is damaged, or of another prediction.
        """
        self.file = file
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._rows = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            with self._converted_errors():
                self._open(resume)
        except BaseException:
            self._rows.close()
            raise

    def _open(self, resume: bool) -> None:
        self._rows.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute("PRAGMA synchronous = NORMAL")
        self._rows.execute("BEGIN EXCLUSIVE")
        if not resume:
            for (table,) in self._rows.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                self._rows.execute(f'DROP TABLE "{table}"')
        for statement in TABLES.split(";"):
            self._rows.execute(statement)
        known = [identity for (identity,) in self._rows.execute("SELECT identity FROM origin")]
        if known not in ([], [self._identity]):
            raise CannotResumeError(
                f"{self.file} holds an unfinished prediction of other rasters, settings or weights: run its command "
                "again to finish it, or add --no-resume to discard it."
            )
        if not known:
            self._rows.execute("INSERT INTO origin VALUES (?)", [self._identity])
        self._rows.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._rows.close()

    def discard(self) -> None:
        """Remove the file, once the output is written."""
        self._rows.close()
        for suffix in ("", "-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)

    def batches(self) -> set[int]:
        """Numbers of the batches that are stored."""
        return {number for (number,) in self._rows.execute("SELECT number FROM batches")}

    def add_batch(self, batch: int, results: Iterable[tuple[int, int, WindowResult]]) -> None:
        """Store the results of a batch: (tile, window, result) of each window."""
        with self._transaction():
            rows = [(tile, window, result.to_bytes()) for tile, window, result in results]
            self._rows.executemany("INSERT INTO seen VALUES (?, ?, ?)", rows)
            self._rows.execute("INSERT INTO batches VALUES (?)", [batch])

    def tiles(self) -> set[int]:
        """The tiles with at least one stored window."""
        return {tile for (tile,) in self._rows.execute("SELECT DISTINCT tile FROM seen")}

    def window_results(self, tile: int) -> Iterator[WindowResult]:
        """The results of a tile's windows, by window number."""
        with self._converted_errors():
            for (shown,) in self._rows.execute("SELECT shown FROM seen WHERE tile = ? ORDER BY window", [tile]):
                try:
                    yield WindowResult.from_bytes(shown)
                except (ValueError, KeyError, EOFError) as error:
                    raise self._damaged() from error

    def replace_detections(self, found: Iterable[tuple[int, Detection]]) -> None:
        """Store the (tile, detection) pairs of all tiles, replacing earlier ones."""
        with self._transaction():
            self._rows.execute("DELETE FROM finds")
            for tile, detection in found:
                self._rows.execute(
                    "INSERT INTO finds VALUES (?, ?, ?)", [tile, detection.score, json.dumps(detection.to_json())]
                )

    def detections(self, tile: int) -> Iterator[dict[str, Any]]:
        """A tile's detections by decreasing score, as :meth:`.Detection.to_json` returns them."""
        with self._converted_errors():
            rows = self._rows.execute("SELECT find FROM finds WHERE tile = ? ORDER BY score DESC, rowid", [tile])
            for (detection,) in rows:
                yield json.loads(detection)

    def count(self) -> int:
        """Number of detections."""
        return int(self._rows.execute("SELECT count(*) FROM finds").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._converted_errors():
            self._rows.execute("BEGIN")
            try:
                yield
            except BaseException:
                if self._rows.in_transaction:
                    self._rows.execute("ROLLBACK")
                raise
            self._rows.execute("COMMIT")

    @contextmanager
    def _converted_errors(self) -> Iterator[None]:
        """Convert SQLite's errors."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(28, "No space left on device", str(self.file)) from None
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise FolderInUseError(
                    f"{self.file} is being written by another prediction: wait for it, or give another output."
                ) from None
            raise self._damaged() from error
        except sqlite3.DatabaseError as error:
            raise self._damaged() from error

    def _damaged(self) -> CannotResumeError:
        return CannotResumeError(f"{self.file} is damaged and cannot be resumed: add --no-resume to start again.")


def fingerprint(files: Sequence[Path]) -> str:
    """A hash of the files' paths, sizes and modification times."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(json.dumps([str(file.resolve()), state.st_size, state.st_mtime_ns]).encode())
    return digest.hexdigest()
