"""The bytes of raster files, before GDAL sees them: opening, recognising the format, checksums."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import fsspec

from thawloop.catalog.errors import RasterRefused
from thawloop.catalog.gdal import FORMATS, driver_of
from thawloop.core.storage import checked_uri

ByteProgress = Callable[[int, int], None]

_CHUNK = 4 * 1024 * 1024
_HEAD = 4096


def canonical_uri(uri: str) -> str:
    """How a scene's place is stored: the s3:// URI, or the absolute path without symlinks.

    Raises:
        Refused: It is not below an allowed root, or there is no such file.
    """
    path = checked_uri(uri)
    return uri if uri.startswith("s3://") else path


@contextmanager
def open_bytes(uri: str) -> Iterator[IO[bytes]]:
    """The raw bytes of a local or s3:// file, by canonical URI."""
    try:
        with fsspec.open(uri, "rb") as stream:
            yield stream
    except FileNotFoundError as error:
        raise RasterRefused(f"{uri} does not exist: check the path.") from error
    except IsADirectoryError as error:
        raise RasterRefused(f"{uri} is a folder: name the raster files in it.") from error
    except PermissionError as error:
        raise RasterRefused(f"{uri} may not be read by this process: check its permissions.") from error


def sniff_driver(uri: str) -> str:
    """The GDAL driver for a file, recognised by its first bytes.

    Raises:
        RasterRefused: It is missing, empty, or of a format that is not read here.
    """
    with open_bytes(uri) as stream:
        head = stream.read(_HEAD)
    driver = driver_of(head)
    if driver is None:
        what = "is empty" if not head else f"is of a format that is not read here ({FORMATS} are)"
        raise RasterRefused(f"{uri} {what}: convert it with `gdal_translate -of COG`.")
    return driver


def checksum(uris: Sequence[str], progress: ByteProgress | None = None) -> tuple[str, int]:
    """SHA-256 and bytes in all of files taken one after the other, streamed.

    Args:
        uris: Canonical URIs; the file itself, and for a VRT what it is made of.
        progress: Called with (bytes read, bytes in all).
    """
    total = sum(_size(uri) for uri in uris)
    digest, done = hashlib.sha256(), 0
    for uri in uris:
        with open_bytes(uri) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    return digest.hexdigest(), done


def _size(uri: str) -> int:
    filesystem, path = fsspec.core.url_to_fs(uri)
    return int(filesystem.size(path) or 0)
