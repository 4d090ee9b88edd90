"""One process at a time in a folder: a lock that ends with its process, however that ends."""

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
    """Hold an existing folder.

    Raises:
        FolderInUseError: it is held already, by another process or in this one; ``refusal`` is its text.
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
    """A fork, such as a worker that reads tiles, shares its parent's lock and would hold it for as long as it lives."""
    for lock in _held:
        lock.close()
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)
