"""Whether a raster is still the same file, as far as its status (inode, size, time) tells."""

import os

# The file, and what GDAL reads beside it.
_FILES = ("", ".ovr", ".msk", ".aux.xml")

Stamp = tuple[tuple[int, int, int, int] | None, ...]


def stamp_of(uri: str) -> Stamp | None:
    """What identifies a file, with the side-car files that GDAL reads, at its path; None if that is not possible."""
    if "://" in uri:
        return None
    found = [_status(f"{uri}{ending}") for ending in _FILES]
    return tuple(found) if found[0] is not None else None


def _status(path: str) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
