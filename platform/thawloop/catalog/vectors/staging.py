"""Bring a label file, zipped or not, under a plain name into a private folder before GDAL sees it.

GDAL gives meaning to names (`!`, `/vsizip/`, `http:`) and to contents (an OGR VRT named `.geojson` reads other files):
here a name is only a name, and a file must look like what its ending says.
"""

import io
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from thawloop.catalog.errors import VectorFileRefused
from thawloop.core.foreign import error_text
from thawloop.core.storage import UriRefused, checked_uri

FORMATS = {
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".gpkg": "GeoPackage",
    ".shp": "Shapefile",
    ".kml": "KML",
    ".fgb": "FlatGeobuf",
    ".csv": "CSV",
    ".tab": "tab-separated or MapInfo",
}
ARCHIVES = (".zip", ".kmz")
KNOWN = ", ".join([*FORMATS, *ARCHIVES])
SIDECARS = (".shx", ".dbf", ".prj", ".cpg", ".dat", ".map", ".id", ".ind")
MAX_MEMBERS = 2_000
# Of an archive at a time, its table of contents included: half a kilobyte for each member.
MAX_READ = 1 << 20
MAX_RATIO = 200
_MAGIC = {
    ".gpkg": (b"SQLite format 3\x00",),
    ".fgb": (b"fgb\x03",),
    ".shp": (b"\x00\x00\x27\x0a",),
}


@contextmanager
def staged(path: Path, *, max_bytes: int, layer: str | None = None) -> Iterator[Path]:
    """Yield a private path to the one vector file in `path`; gone when the block ends.

    Args:
        path: A file the caller has already allowed.
        max_bytes: Bound on its size, and on what an archive unpacks to.
        layer: Chooses among several vector files of an archive by name without ending.

    Raises:
        VectorFileRefused: Too large, empty, unknown ending, not what the ending says, or a bad archive.
    """
    _check_size(path, max_bytes)
    with tempfile.TemporaryDirectory(prefix="thawloop-labels-") as folder:
        if path.suffix.lower() in ARCHIVES:
            yield _unpack(path, Path(folder), max_bytes, layer)
        else:
            yield _link(path, Path(folder))


def _check_size(path: Path, max_bytes: int) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise VectorFileRefused(f"There is no label file {path}: check the path.") from None
    except OSError as error:
        raise VectorFileRefused(f"{path.name} cannot be read ({error.strerror}): check its permissions.") from error
    if not stat.S_ISREG(found.st_mode):
        raise VectorFileRefused(f"{path.name} is not a file: name one of {KNOWN}.")
    if found.st_size == 0:
        raise VectorFileRefused(f"{path.name} is empty: export it again.")
    if found.st_size > max_bytes:
        raise VectorFileRefused(
            f"{path.name} has {found.st_size:,} bytes, more than the {max_bytes:,} allowed: split it or raise "
            "THAWLOOP_MAX_VECTOR_BYTES."
        )


def _link(path: Path, folder: Path) -> Path:
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise VectorFileRefused(f"{path.name} ends in `{path.suffix}`, which is not a known label format: use {KNOWN}.")
    sidecars = {}
    if ending in (".shp", ".tab"):
        sidecars = {
            other.suffix.lower(): other
            for other in path.parent.iterdir()
            if other.stem == path.stem and other.suffix.lower() in SIDECARS
        }
    if ending == ".shp" and ".shx" not in sidecars:
        raise VectorFileRefused(
            f"{path.name} has no {path.stem}.shx beside it: a shapefile is several files, copy all of them."
        )
    for suffix, other in sidecars.items():
        if other.is_symlink():
            _check_link(other, path.name)
        (folder / f"data{suffix}").symlink_to(os.path.realpath(other))
    target = folder / f"data{ending}"
    target.symlink_to(os.path.realpath(path))
    _check_content(target, path.name)
    return target


def _check_link(other: Path, name: str) -> None:
    """The file that was asked for has been allowed, but its parts may lead out of the data roots."""
    try:
        checked_uri(str(other.absolute()))
    except UriRefused as error:
        raise VectorFileRefused(f"{other.name} beside {name} leads elsewhere: {error}") from error


def _check_content(path: Path, name: str) -> None:
    """Raise unless the first bytes look like the format the ending names."""
    ending = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(4096)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if ending in (".geojson", ".json"):
        fits = text.startswith(b"{")
    elif ending == ".kml":
        fits = text.startswith(b"<") and b"<kml" in head
    elif ending in _MAGIC:
        fits = head.startswith(_MAGIC[ending])
    else:
        fits = b"\x00" not in head
    if not fits:
        raise VectorFileRefused(
            f"{name} does not hold {FORMATS[ending]} data, whatever its name says: export it again as one of {KNOWN}."
        )


def _unpack(path: Path, folder: Path, max_bytes: int, layer: str | None) -> Path:
    try:
        with _Sparing(path.open("rb", buffering=0)) as file, zipfile.ZipFile(file) as archive:
            members = _safe_members(archive, path.name, max_bytes)
            chosen = _choose(members, path.name, layer)
            ending = PurePosixPath(chosen.filename).suffix.lower()
            stem = PurePosixPath(chosen.filename).with_suffix("")
            left = max_bytes
            for member in members:
                inner = PurePosixPath(member.filename)
                if inner.with_suffix("") == stem and inner.suffix.lower() in (ending, *SIDECARS):
                    left -= _extract(archive, member, folder / f"data{inner.suffix.lower()}", left, path.name)
    except _UNREADABLE as error:
        raise VectorFileRefused(
            f"{path.name} is not a readable zip archive ({error_text(error)}): zip the files again."
        ) from error
    target = folder / f"data{ending}"
    if ending == ".shp" and not (folder / "data.shx").exists():
        raise VectorFileRefused(f"{chosen.filename} in {path.name} has no .shx beside it: zip all of its parts.")
    _check_content(target, f"{chosen.filename} in {path.name}")
    return target


# What `zipfile` raises for files that are damaged, encrypted or odd.
_UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    NotImplementedError,
    EOFError,
    RuntimeError,
    ValueError,
)


class _Sparing(io.BufferedReader):
    """A file that refuses large reads: `zipfile` would read a table of contents whole before counting its members."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_READ:
            raise VectorFileRefused(
                f"{Path(self.name).name} holds more than {MAX_MEMBERS:,} files: zip only the labels."
            )
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:  # to before the beginning: the archive's own numbers are wrong
            raise zipfile.BadZipFile("its table of contents is damaged") from error


def _safe_members(archive: zipfile.ZipFile, name: str, max_bytes: int) -> list[zipfile.ZipInfo]:
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not PurePosixPath(member.filename).name.startswith("._")
    ]
    if len(members) > MAX_MEMBERS:
        raise VectorFileRefused(f"{name} holds {len(members):,} files, more than {MAX_MEMBERS:,}: zip only the labels.")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise VectorFileRefused(f"{name} is not packed in the usual way (deflate): zip the files again.")
    total = sum(member.file_size for member in members)
    packed = max(1, sum(member.compress_size for member in members))
    if total > max_bytes or (total > 50_000_000 and total / packed > MAX_RATIO):
        raise VectorFileRefused(
            f"{name} unpacks to {total:,} bytes, more than allowed: unzip it yourself and import the file you need."
        )
    return members


def _choose(members: list[zipfile.ZipInfo], name: str, layer: str | None) -> zipfile.ZipInfo:
    found = [m for m in members if PurePosixPath(m.filename).suffix.lower() in FORMATS]
    if layer and len(found) > 1:
        found = [m for m in found if PurePosixPath(m.filename).stem == layer] or found
    if not found:
        raise VectorFileRefused(f"{name} holds no label file: put one of {', '.join(FORMATS)} into it.")
    if len(found) > 1:
        names = ", ".join(PurePosixPath(m.filename).stem for m in found[:8])
        raise VectorFileRefused(
            f"{name} holds {len(found)} label files ({names}): choose one with --layer NAME "
            "(in a campaign file `layer`)."
        )
    return found[0]


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, limit: int, name: str) -> int:
    """Write one member, counting the bytes written: the sizes in headers may be wrong."""
    written = 0
    with archive.open(member) as source, target.open("wb") as sink:
        while block := source.read(MAX_READ):
            written += len(block)
            if written > limit:
                raise VectorFileRefused(f"{name} unpacks to more than is allowed: unzip it yourself first.")
            sink.write(block)
    return written
