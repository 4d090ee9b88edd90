"""One `make serve` or `make demo` at a time in one folder."""

import fcntl
import os
from pathlib import Path
from typing import IO

from devstack.errors import AlreadyRunning


class FolderLock:
    """Held while this process lives; the kernel lets go of it however the process ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "running.lock"
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take the lock.

        Raises:
            AlreadyRunning: another process has it (its id is in the message).
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise AlreadyRunning(
                f"ThawLoop is running in {self._path.parent} already (process {owner}): use it, or end it first."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let go, if held."""
        if self._file is not None:
            self._file.close()
            self._file = None
