"""Directories that are complete or absent: releases, checkpoints.

THAWLOOP_ARTIFACTS is a folder, or a URL that fsspec knows (`s3://bucket/prefix`). Then the folder
`<var>/cache/artifacts` holds what was used here, and an artifact exists remotely once its list of files does: that is
uploaded last.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from uuid import uuid4

import fsspec
from django.conf import settings

from thawloop.core.errors import Refused
from thawloop.core.storage.disk import explain_full_disk

CONTENTS = ".contents.json"
_PARTIAL = ".partial"
_FOREIGN_LEFTOVER_SECONDS = 7 * 24 * 3600.0


def artifact(name: str) -> Path:
    """The local path of an artifact, e.g. `releases/peel/1.0.0`; fetched first where artifacts are kept remotely.

    The path need not exist: then nobody has published that artifact.

    Raises:
        Refused: the name leads elsewhere.
    """
    path = local_root() / _checked_name(name)
    if remote_root() and not path.exists():
        _download(name, path)
    return path


@contextmanager
def publish_directory(name: str, *, replace: bool = False, needed_bytes: int | None = None) -> Iterator[Path]:
    """Write an artifact so that it is there completely or not at all, even if the machine dies.

    Yields an empty folder beside the artifact. When the block ends well it is flushed to the disk and renamed; an
    artifact that exists already stays as it is, unless `replace`. When the block raises, the folder is removed.

    Args:
        name: The artifact.
        replace: Put the new one in the place of an existing one.
        needed_bytes: About how much will be written, for the sentence about a full disk.

    Raises:
        StorageFull: the disk is full.
    """
    target = local_root() / _checked_name(name)
    partial = _partial_beside(target)
    try:
        with explain_full_disk(target.parent, name, needed_bytes=needed_bytes):
            partial.mkdir(parents=True)
            yield partial
            _flush(partial)
            if replace or not artifact(name).exists():
                _upload(name, partial)
                _move(partial, target, replace=replace)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep_leftovers() -> list[str]:
    """Remove what killed processes left half written; what a live process of this machine writes is left alone."""
    removed = []
    for folder in local_root().rglob(f".*{_PARTIAL}"):
        host, pid = folder.name.removesuffix(_PARTIAL).rsplit(".", 3)[-3:-1]
        try:
            age = time.time() - folder.stat().st_mtime
        except FileNotFoundError:
            continue
        dead = not Path(f"/proc/{pid}").exists() if Path("/proc/self").exists() else age > 24 * 3600
        if dead if host == socket.gethostname() else age > _FOREIGN_LEFTOVER_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(f"Removed {folder}, which a killed process left half written.")
    return removed


def local_root() -> Path:
    """Where artifacts are on this machine."""
    return settings.VAR_DIR / "cache" / "artifacts" if remote_root() else Path(settings.THAWLOOP_ARTIFACTS)


def remote_root() -> str:
    """Where artifacts are kept when that is elsewhere, else empty."""
    return settings.THAWLOOP_ARTIFACTS.rstrip("/") if "://" in settings.THAWLOOP_ARTIFACTS else ""


def _checked_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    hostile = path.is_absolute() or "\0" in name or any(part.startswith(".") for part in path.parts)
    if hostile or not path.parts or str(path) != name:
        raise Refused(f"{name!r} is not an artifact name, which looks like `releases/peel/1.0.0`.")
    return path


def _move(partial: Path, target: Path, *, replace: bool) -> None:
    if replace and target.exists():
        old = partial.with_name(partial.name.replace(_PARTIAL, f"-old{_PARTIAL}"))
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        try:
            partial.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return  # another process published the same artifact a moment ago
    _flush_entry(target.parent)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            _flush_entry(path)
    _flush_entry(folder)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _upload(name: str, folder: Path) -> None:
    if not (root := remote_root()):
        return
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    remote, base = fsspec.core.url_to_fs(f"{root}/{name}")
    for file in files:
        remote.makedirs(f"{base}/{file}".rsplit("/", 1)[0], exist_ok=True)
        remote.put_file(str(folder / file), f"{base}/{file}")
    remote.makedirs(base, exist_ok=True)
    remote.pipe_file(f"{base}/{CONTENTS}", json.dumps(files).encode())


def _download(name: str, target: Path) -> None:
    remote, base = fsspec.core.url_to_fs(f"{remote_root()}/{name}")
    try:
        files = json.loads(remote.cat_file(f"{base}/{CONTENTS}"))
    except FileNotFoundError:
        return
    partial = _partial_beside(target)
    try:
        with explain_full_disk(target.parent, f"the local copy of {name}"):
            partial.mkdir(parents=True)
            for file in files:
                (partial / file).parent.mkdir(parents=True, exist_ok=True)
                remote.get_file(f"{base}/{file}", str(partial / file))
            _move(partial, target, replace=False)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial_beside(target: Path) -> Path:
    """A hidden name that says whose it is: see `sweep_leftovers`."""
    return target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}.{uuid4().hex[:8]}{_PARTIAL}")
