"""A lock on a folder, released when its process ends for whatever reason."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ml_backend.detector.errors import FolderInUseError

_held: set[IO[str]] = set()


@contextmanager
def lock_folder(folder: Path, refusal: str) -> Iterator[None]:
    """Hold the lock of an existing folder.

    Raises:
        FolderInUseError: it is held already, by another process or by this one; ``refusal`` is its text.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(refusal) from None
        _held.add(lock)
        try:
            yield
        finally:
            _held.discard(lock)


def _release_in_child() -> None:
    """Close inherited locks: a forked process, such as a data loading worker, would hold its parent's lock."""
    for lock in _held:
        lock.close()
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
