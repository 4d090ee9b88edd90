"""Every file of a dataset directory with its size and SHA-256."""

import hashlib
import json
from pathlib import Path
from typing import Any

from thawloop.core.storage import sha256

MANIFEST = "manifest.json"


def digest(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def write_manifest(folder: Path, known: dict[str, dict[str, Any]]) -> str:
    """Write manifest.json over all files below a folder and return its own SHA-256.

    Args:
        folder: The dataset directory.
        known: Digests that are known already, by relative path.
    """
    files = {name: known.get(name) or digest(folder / name) for name in sorted(relative_files(folder) - {MANIFEST})}
    text = json.dumps({"files": files}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Digests by relative path."""
    files: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST).read_text())["files"]
    return files


def relative_files(folder: Path) -> set[str]:
    """Relative paths of all files below a folder, with forward slashes."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def differences(folder: Path) -> list[str]:
    """A sentence for every file that is missing, changed or not in the manifest; none for an intact directory."""
    known = read_manifest(folder)
    present = relative_files(folder) - {MANIFEST}
    found = [f"{name} is missing." for name in sorted(known.keys() - present)]
    found += [f"{name} is not in the manifest." for name in sorted(present - known.keys())]
    for name in sorted(known.keys() & present):
        now = digest(folder / name)
        if now != known[name]:
            what = "has another size" if now["bytes"] != known[name]["bytes"] else "has other content"
            found.append(f"{name} {what} than when the release was made.")
    return found
