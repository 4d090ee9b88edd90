"""Tiles in numpy archives (``.npz``): arrays of pixels beside an array of labels; nothing is unpickled."""

from __future__ import annotations

import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ml_backend.detector.errors import DatasetError
from ml_backend.detector.importing.draft import LabelledTile
from ml_backend.detector.masks import encode_rle

LABELS = ("masks", "mask", "labels", "label", "instances", "y")
LARGEST = 4 << 30  # bytes of an archive's arrays together
NUMBERS = "fiub"
Array = npt.NDArray[Any]


def stack(
    file: Path, modalities: Mapping[str, str], label_key: str, classes: Sequence[str], semantic: bool, left: list[str]
) -> Iterator[LabelledTile]:
    """The tiles of an archive.

    Args:
        file: the archive.
        modalities: key of the array of each modality; empty takes every array except the labels, by its name.
        label_key: of the array of labels, [H, W] or [N, H, W]; empty looks for one of :data:`LABELS`.
        classes: names of the classes; objects of instance labels have the first.
        semantic: whether label numbers are classes; otherwise each number is an object. If there is only one number
            besides 0, objects are its connected parts either way.
        left: is extended by what was left out.

    Raises:
        DatasetError: it is not such an archive, is too large, or its arrays do not match.
    """
    arrays = read_archive(file)
    key = label_key or next((name for name in LABELS if name in arrays), "")
    if key not in arrays:
        raise DatasetError(f"{file} has no array '{key or LABELS[0]}' of labels (it has {', '.join(arrays)}): name it.")
    labels = arrays[key]
    others = {_modality(name): name for name, array in arrays.items() if name != key and array.ndim >= 2}
    chosen = modalities or others
    if missing := [name for name in chosen.values() if name not in arrays]:
        raise DatasetError(f"{file} has no array '{missing[0]}' (it has {', '.join(arrays)}): correct --array.")
    single = labels.ndim == 2
    tiles = labels[None] if single else labels
    if tiles.ndim != 3 or tiles.dtype.kind not in "iub" or not chosen:
        raise DatasetError(
            f"{file}: labels must be whole numbers [H, W] or [N, H, W], beside at least one array of pixels."
        )
    size = (tiles.shape[1], tiles.shape[2])
    pixels = {}
    for modality, name in chosen.items():
        members = [arrays[name]] if single else list(arrays[name])
        if len(members) != len(tiles):
            raise DatasetError(
                f"{file}: {len(members)} tiles of '{modality}', but {len(tiles)} of labels: give as many of each."
            )
        pixels[modality] = [_bands(file, name, array, size) for array in members]
    for number, tile in enumerate(tiles):
        name = f"{file.stem}.tif" if single else f"{file.stem}_{number:05d}.tif"
        objects = list(_objects(tile, classes, semantic))
        if unknown := [label for label, _, _ in objects if not label]:
            left.append(f"{name}: {len(unknown)} objects of a class without a name (--classes)")
        else:
            yield LabelledTile(name, objects, arrays={m: members[number] for m, members in pixels.items()})


def read_archive(file: Path) -> dict[str, Array]:
    """The numeric arrays of an archive.

    Raises:
        DatasetError: it is not an archive, holds objects, is larger than :data:`LARGEST`, or the header of an array
            does not match its size.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if sum(info.file_size for info in members) > LARGEST:
                raise DatasetError(f"{file} holds more than {LARGEST >> 30} GiB: split it into several archives.")
            return {info.filename.removesuffix(".npy"): _read(archive, info) for info in members}
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, EOFError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DatasetError(
            f"{file} is not a readable .npz of numbers ({reason}): write it again with numpy.savez."
        ) from None


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    layout: Any = np.lib.format
    with archive.open(info) as stream:
        version = layout.read_magic(stream)
        header = layout.read_array_header_1_0 if version == (1, 0) else layout.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype.kind not in NUMBERS:
            raise ValueError(f"array '{info.filename}' holds values other than numbers")
        if math.prod(shape) * dtype.itemsize != info.file_size - stream.tell():
            raise ValueError(f"array '{info.filename}' does not have the size in its header")
    with archive.open(info) as stream:
        array: Array = layout.read_array(stream, allow_pickle=False)
    return array


def _bands(file: Path, name: str, array: Array, size: tuple[int, int]) -> Array:
    """One tile's pixels as [C, H, W]."""
    if array.shape == size:
        return array[None]
    if array.ndim == 3 and array.shape[1:] == size:
        return array
    if array.ndim == 3 and array.shape[:2] == size:
        return np.moveaxis(array, 2, 0)
    raise DatasetError(
        f"{file}: a tile of '{name}' has shape {array.shape}, but its labels {size}: give [H, W], [C, H, W] or "
        "[H, W, C]."
    )


def _modality(key: str) -> str:
    """A valid modality name made from the name of an array."""
    return re.sub(r"[^a-z0-9_-]", "_", key.lower()).lstrip("_-") or "array"


def _objects(labels: Array, classes: Sequence[str], semantic: bool) -> Iterator[tuple[str, Any, bool]]:
    values = [int(value) for value in np.unique(labels) if value != 0]
    for value in values:
        mask = labels == value
        masks: Iterable[Array]
        if semantic or len(values) == 1:
            parts, count = ndimage.label(mask, np.ones((3, 3)))
            masks = (parts == part + 1 for part in range(count))  # one at a time: noise has thousands
        else:
            masks = [mask]
        number = value - 1 if semantic else 0
        label = classes[number] if 0 <= number < len(classes) else ""
        for one in masks:
            rle = encode_rle(one)
            yield label, {"size": list(one.shape), "counts": rle["counts"].decode("ascii")}, False
