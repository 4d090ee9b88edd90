"""A cache of drawn pictures, as files: `<folder>/<first two digits of the key>/<key>.png`.

A key names everything that goes into a picture, so a file is never wrong, only unused. Files appear whole (written
beside and renamed), any number of processes may write and remove at once, and a killed process leaves at most a part
file, which is removed an hour later. The least recently used go first when the folder outgrows its limit.
"""

import os
import time
from pathlib import Path
from tempfile import NamedTemporaryFile

import structlog
from django.conf import settings

log = structlog.get_logger(__name__)

_END = b"IEND\xaeB`\x82"  # of every whole PNG
_PART = ".part"
_TRIM_EVERY = 64  # pictures written by a process; so many may lie beyond the limit
_TRIM_TO = 0.8
_ABANDONED_SECONDS = 3600.0


class PictureCache:
    """A bounded folder of pictures.

    Args:
        folder: Made when first written to.
        limit_bytes: What the pictures may take in all, about; 0 keeps none.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._until_trim = 0

    def get(self, key: str) -> bytes | None:
        """The picture, if it is there in whole."""
        path = self._path(key)
        try:
            picture = path.read_bytes()
            os.utime(path)  # so that it is not the next to go
        except OSError:  # not there, or removed by another process a moment ago
            return None
        return picture if picture.endswith(_END) else None

    def put(self, key: str, picture: bytes) -> None:
        """Keep a picture. A disk that takes none (full, read-only) makes pictures slower, not impossible."""
        if not self.limit_bytes:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, suffix=_PART, delete=False) as part:
                part.write(picture)
            Path(part.name).replace(path)
            if self._until_trim <= 0:
                self._until_trim = _TRIM_EVERY
                self.trim()
            self._until_trim -= 1
        except OSError as error:
            log.warning("a picture could not be kept", folder=str(self.folder), why=str(error))

    def trim(self) -> None:
        """Remove abandoned part files, and the pictures not asked for the longest while there are too many."""
        kept: list[tuple[float, int, Path]] = []
        for path in self.folder.glob("*/*"):
            try:
                found = path.stat()
            except FileNotFoundError:  # another process trims, too
                continue
            if path.suffix != _PART:
                kept.append((found.st_mtime, found.st_size, path))
            elif found.st_mtime < time.time() - _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in kept)
        if total <= self.limit_bytes:
            return
        for _, size, path in sorted(kept):
            if total <= _TRIM_TO * self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.png"


_caches: dict[tuple[str, int], PictureCache] = {}


def picture_cache() -> PictureCache:
    """The cache that the settings name."""
    named = (settings.THAWLOOP_PICTURE_CACHE, settings.THAWLOOP_PICTURE_CACHE_MB * 1_000_000)
    return _caches.setdefault(named, PictureCache(Path(named[0]), named[1]))
