"""Full disks, whoever notices them: Python, GDAL, SQLite or a Rust library."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thawloop.core.errors import Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAYINGS = ("no space left on device", "disk is full", "disk quota exceeded")


class StorageFull(Unavailable):
    """There is no room left on a disk."""

    status_code = 507


@contextmanager
def explain_full_disk(folder: Path, what: str, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn a full disk inside the block into one sentence.

    Args:
        folder: Where the block writes.
        what: What it writes, for the sentence, e.g. `release peel 1.0.0`.
        needed_bytes: About how much it needs, if known.

    Raises:
        StorageFull: the disk that holds `folder` is full.
    """
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        needs = f"it needs about {_megabytes(needed_bytes)} MB and " if needed_bytes else ""
        raise StorageFull(
            f"The disk that holds {folder} is full: {what} could not be written ({needs}{_megabytes(free)} MB are"
            " free). Free some space and run it again; nothing was left half done."
        ) from error


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f}"


def _is_full(error: BaseException | None) -> bool:
    """Whether this error, or one that it came from, says so. GDAL and Rust libraries only say it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(saying in str(error).lower() for saying in _SAYINGS):
            return True
        error = error.__cause__ or error.__context__
    return False
