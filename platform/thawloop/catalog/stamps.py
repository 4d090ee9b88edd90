"""Whether a raster is still the file that it was, as far as a look at it tells."""

import os

# The file, and what GDAL reads beside it.
_FILES = ("", ".ovr", ".msk", ".aux.xml")

Stamp = tuple[tuple[int, int, int, int] | None, ...]


def stamp_of(uri: str) -> Stamp | None:
    """What tells a file, with what GDAL reads beside it, from another at its place; None if it cannot be told."""
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
