"""Export a release to a path in a format."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from thawloop.core.storage import explain_full_disk
from thawloop.releases.dataset.writing import Progress
from thawloop.releases.errors import ExportRefused
from thawloop.releases.exports import EXPORTERS
from thawloop.releases.models import Release
from thawloop.releases.services.materialise import materialise

FOLDERS = ("coco", "dataset")
ENDINGS = {"gpkg": (".gpkg",), "geojson": (".geojson", ".json"), "tiles": (".geojson", ".json")}
# Zip archives carry the earliest date they can, so that equal content makes equal archives.
EPOCH = (1980, 1, 1, 0, 0, 0)


def export(
    release: Release, fmt: str, out: Path | str, *, force: bool = False, progress: Progress | None = None
) -> Path:
    """Write a release to `out`, completely or not at all.

    Args:
        release: Which one; its files are made if they are needed and not there yet.
        fmt: `dataset` or `coco` (a directory, or an archive if `out` ends in `.zip`); `gpkg`, `geojson` (labels) or
            `tiles` (as GeoJSON), a file.
        out: Where; its folder must exist.
        force: Replace what is there.
        progress: Called with a fraction 0-1 and a message while files are made.

    Returns:
        The path written.

    Raises:
        ExportRefused: Unknown format, something is there already, or it cannot be written.
        StorageFull: The disk is full.
    """
    target = Path(out)
    _check(fmt, target, force=force)
    try:
        with explain_full_disk(target.parent, target.name), _beside(target) as temporary:
            made = temporary / (f"data{target.suffix}" if fmt in ENDINGS else "data")
            EXPORTERS[fmt](release, made, partial(materialise, release, progress=progress))
            if fmt in FOLDERS and target.suffix.lower() == ".zip":
                made = _zip(made, temporary / "data.zip", release)
            _replace(made, target)
    except PermissionError as error:
        raise ExportRefused(f"{target} cannot be written ({error.strerror}): choose another place.") from error
    return target


def _check(fmt: str, target: Path, *, force: bool) -> None:
    if fmt not in EXPORTERS:
        raise ExportRefused(f"Format `{fmt}` is unknown: use {', '.join(sorted(EXPORTERS))}.")
    if not target.parent.is_dir():
        raise ExportRefused(f"There is no folder {target.parent}: create it first.")
    if fmt in ENDINGS and target.suffix.lower() not in ENDINGS[fmt]:
        raise ExportRefused(f"{target.name} should end in {' or '.join(ENDINGS[fmt])} for format {fmt}.")
    if os.path.lexists(target):
        if not force:
            raise ExportRefused(f"{target} exists: name another place, or replace it with --force.")
        if target.is_dir() and not target.is_symlink() and (fmt in ENDINGS or not _is_export(target)):
            raise ExportRefused(f"{target} is a folder that was not exported from here: it is not replaced.")


def _is_export(folder: Path) -> bool:
    """Whether a folder is empty or looks like one of our exports, so that --force cannot wipe a home folder."""
    return not any(folder.iterdir()) or (folder / "annotations").is_dir()


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A private folder on the same file system as the target, so that a rename is enough."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(made: Path, target: Path) -> None:
    if os.path.lexists(target) and (target.is_dir() or made.is_dir()) and not target.is_symlink():
        os.rename(target, made.parent / "replaced")
    os.chmod(made, 0o755 if made.is_dir() else 0o644)
    os.replace(made, target)


def _zip(folder: Path, archive: Path, release: Release) -> Path:
    root = f"{release.campaign.name}-{release.version}"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{root}/{path.relative_to(folder).as_posix()}", EPOCH)
            entry.compress_type = zipfile.ZIP_STORED if path.suffix == ".png" else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, file.open(entry, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    return archive
