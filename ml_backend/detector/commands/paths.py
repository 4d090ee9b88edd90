"""Paths given to commands: inputs by modality, and outputs, which are checked before any work starts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.errors import ConfigError


def modality_path(what: str) -> Callable[[str], tuple[str, Path]]:
    """An argparse type: ``MODALITY=PATH``."""

    def named(text: str) -> tuple[str, Path]:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise argparse.ArgumentTypeError(f"'{text}' is not of the form MODALITY={what}")
        return name, Path(path)

    return named


def by_modality(given: Sequence[tuple[str, Path]], option: str) -> dict[str, Path]:
    """The paths of a repeated option, by modality.

    Raises:
        ConfigError: a modality is given twice.
    """
    paths: dict[str, Path] = {}
    for name, path in given:
        if name in paths:
            raise ConfigError(f"{option} gives both {paths[name]} and {path} for '{name}': give one.")
        paths[name] = path
    return paths


def prepare_parent(target: Path, option: str) -> None:
    """Create the parent folder of an output, and check that it is writable.

    Raises:
        ConfigError: that is not possible.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{option} {target} cannot be written, since {target.parent} is not a folder and cannot be created "
            f"({error.strerror}): give another path."
        ) from None
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {target} cannot be written: get the right to write in {target.parent}.")


def prepare_folder(target: Path, option: str) -> None:
    """Check that a folder can be created, or written to if it exists.

    Raises:
        ConfigError: that is not possible.
    """
    if not os.path.lexists(target):
        prepare_parent(target, option)
    elif not target.is_dir():
        raise ConfigError(f"{option} {target} is a file: give the name of a folder.")
    elif not os.access(target, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {target} cannot be written: get the right to write in {target}.")


def prepare_files(**files: Path | None) -> None:
    """:func:`prepare_parent` for files, by the names of their options.

    Raises:
        ConfigError: that is not possible, a folder has its name, or two options name the same file.
    """
    seen: dict[Path, str] = {}
    for name, file in files.items():
        if file is None:
            continue
        prepare_parent(file, f"--{name}")
        if file.is_dir():
            raise ConfigError(f"--{name} {file} is a folder: give the name of a file.")
        if file.resolve() in seen:
            raise ConfigError(f"--{seen[file.resolve()]} and --{name} both name {file}: give two files.")
        seen[file.resolve()] = name


def write(file: Path, text: str) -> None:
    """Write a file atomically: after a crash it is either the old or the new one.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    try:
        replace_file(file, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
