"""Full disks, whether Python, GDAL, SQLite or a Rust library notices."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thawloop.core.errors import Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_MESSAGES = ("no space left on device", "disk is full", "disk quota exceeded")
SUSPICIOUSLY_FEW_BYTES = 256 * 1024


class StorageFull(Unavailable):
    """There is no room left on a disk."""

    status_code: int = 507


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
        # GDAL writes its last blocks when a file is closed, and rasterio does not say when that fails.
        if _free_bytes(folder) < SUSPICIOUSLY_FEW_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except Exception as error:
        free = _free_bytes(folder)
        if not _means_full_disk(error) and free >= SUSPICIOUSLY_FEW_BYTES:
            raise
        needs = f"it needs about {_megabytes(needed_bytes)} MB and " if needed_bytes else ""
        raise StorageFull(
            f"The disk that holds {folder} is full: {what} could not be written ({needs}{_megabytes(free)} MB are"
            " free). Free some space and run it again; nothing was left half done."
        ) from error


def _free_bytes(folder: Path) -> int:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f}"


def _means_full_disk(error: BaseException | None) -> bool:
    """Whether this error, or one that it came from, says so; libraries in other languages only do so in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(message in str(error).lower() for message in _FULL_MESSAGES):
            return True
        error = error.__cause__ or error.__context__
    return False
