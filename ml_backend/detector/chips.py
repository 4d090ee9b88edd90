"""Chips: reading them, and turning the modalities of a tile into the one tensor the network takes.

The network input is float32 [C + M, H, W]: the normalised bands of all modalities in order, then one validity plane
per modality (1 where it has data). Invalid pixels are 0, the mean: a missing modality is one that is invalid
everywhere.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from contracts.pixels import (
    declared_valid,
    has_alpha,
    has_own_mask,
    hides_imagery,
    measured_bands,
    measurements,
    orientation,
    oriented,
)
from ml_backend.detector.annotations import MAX_PIXELS
from ml_backend.detector.dataset import DatasetSpec, ModalitySpec, Tile
from ml_backend.detector.errors import DatasetError
from ml_backend.detector.masks import BoolArray, FloatArray

# What a chip may be, whatever its name: GDAL would follow a virtual raster anywhere, to the network too.
SIGNATURES = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}


@dataclass(frozen=True)
class ChipInput:
    """The pixels of a tile.

    Attributes:
        arrays: per modality float32 [C, H, W] in the modality's own units; an absent modality is missing.
        valid: per modality bool [H, W]; where absent, the pixels finite in all bands are valid.
    """

    arrays: Mapping[str, FloatArray]
    valid: Mapping[str, BoolArray]


def read_chip(file: Path, modality: ModalitySpec, size: tuple[int, int] | None = None) -> tuple[FloatArray, BoolArray]:
    """Read one chip, by the rule of :mod:`contracts.pixels`: nodata, mask, alpha, scale and orientation.

    Args:
        file: GeoTIFF, PNG or JPEG.
        modality: what it should hold; its nodata replaces what the file says.
        size: (H, W) that it should have as people see it; None takes any of at most :data:`MAX_PIXELS` pixels.

    Returns:
        float32 [C, H, W] and its validity [H, W].

    Raises:
        DatasetError: the file cannot be read, or has another size or number of bands.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # PNG and JPEG have no place on Earth
            # without its shortcut for whole images, which gives a truncated PNG whatever was in the memory
            with rasterio.Env(GDAL_PNG_WHOLE_IMAGE_OPTIM="NO"), rasterio.open(file, driver=chip_driver(file)) as raster:
                bands, turned = measured_bands(raster), orientation(raster, file)
                _check_shape(file, raster, modality, size, bands=bands, turned=turned)
                array, valid = _pixels(raster, bands, modality)
    except (RasterioError, OSError, MemoryError) as error:
        raise unreadable(file, error) from None
    return oriented(array, turned), oriented(valid, turned)


def _pixels(raster: Any, bands: Sequence[int], modality: ModalitySpec) -> tuple[FloatArray, BoolArray]:
    raw = raster.read(bands)
    masked = modality.nodata is None and has_own_mask(raster, bands)
    own = declared_valid(raster, bands, raw, nodata=modality.nodata)
    if masked and has_alpha(raster, bands) and hides_imagery(raw, own):
        own = declared_valid(raster, bands, raw, own_mask=False)
    scales = [(raster.scales[band - 1], raster.offsets[band - 1]) for band in bands]
    pairs = [measurements(raw[i : i + 1], *scale) for i, scale in enumerate(scales)]
    array: FloatArray = np.concatenate([values for values, _ in pairs])
    valid: BoolArray = np.logical_and.reduce([own, *(finite for _, finite in pairs)])
    return array, valid


def _check_shape(
    file: Path, raster: Any, modality: ModalitySpec, size: tuple[int, int] | None, *, bands: Sequence[int], turned: int
) -> None:
    """Before any pixel is read: a small file may claim to be huge."""
    if len(bands) != len(modality.bands):
        raise DatasetError(
            f"{file} has {len(bands)} bands, but modality '{modality.name}' declares {len(modality.bands)} "
            f"({', '.join(modality.bands)}): export the declared bands or correct dataset.json."
        )
    height, width = raster.shape if turned < 5 else raster.shape[::-1]
    if size is not None and (height, width) != size:
        if turned != 1 and raster.shape == size:
            raise DatasetError(
                f"{file} is declared as {size[1]} x {size[0]} pixels, as stored, but its EXIF orientation ({turned}) "
                f"shows it as {width} x {height}: declare it so if its outlines were drawn on what is shown, or remove "
                "the orientation from the file."
            )
        raise DatasetError(
            f"{file} is {width} x {height} pixels, but its tile is declared as {size[1]} x {size[0]}: "
            "resample the chip to the tile's grid or correct the annotation file."
        )
    if width * height > MAX_PIXELS:
        raise DatasetError(f"{file} is {width} x {height} pixels: cut it into tiles of at most {MAX_PIXELS:,} pixels.")
    if any(np.dtype(kind).kind == "c" for kind in raster.dtypes):
        raise DatasetError(f"{file} holds complex numbers: export amplitude or phase as bands of their own.")


def read_tile(dataset: DatasetSpec, modalities: Sequence[ModalitySpec], tile: Tile) -> ChipInput:
    """Read the chips that a tile has of the given modalities.

    Raises:
        DatasetError: see :func:`read_chip`; or a chip's size is not the tile's.
    """
    arrays, valid = {}, {}
    for modality in modalities:
        file = dataset.chip_file(modality.name, tile)
        if file is None:
            continue
        arrays[modality.name], valid[modality.name] = read_chip(file, modality, (tile.height, tile.width))
    return ChipInput(arrays, valid)


def chip_size(chip: ChipInput, modalities: Sequence[ModalitySpec]) -> tuple[int, int]:
    """(height, width) of a tile, once it is clear that all it has of the modalities agrees on it.

    Raises:
        DatasetError: it has none of the modalities, or one has the wrong shape.
    """
    known = [modality for modality in modalities if modality.name in chip.arrays]
    if not known:
        raise DatasetError(
            f"The tile has none of the model's modalities ({', '.join(m.name for m in modalities)}): "
            "read at least one, or leave the tile out."
        )
    height, width = chip.arrays[known[0].name].shape[-2:]
    for modality in known:
        array, expected = chip.arrays[modality.name], (len(modality.bands), height, width)
        if array.shape != expected:
            raise DatasetError(
                f"Modality '{modality.name}' has shape {array.shape} instead of {expected} (bands, height, "
                "width): resample all modalities of a tile to one grid."
            )
        valid = chip.valid.get(modality.name)
        if valid is not None and valid.shape != expected[1:]:
            raise DatasetError(
                f"The validity of modality '{modality.name}' has shape {valid.shape} instead of {expected[1:]} "
                "(height, width): give one value per pixel."
            )
    return height, width


def unreadable(file: Path, error: Exception) -> DatasetError:
    """What to say of a raster that cannot be read."""
    if not os.path.lexists(file) and os.access(file.parent, os.X_OK):
        return DatasetError(f"{file} does not exist: check the path.")
    reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
    return DatasetError(f"{file} cannot be read ({reason}): export the chip again.")


def network_input(
    chip: ChipInput, modalities: Sequence[ModalitySpec], reduction: float = 1.0
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Normalise a tile for the network.

    Args:
        chip: the tile; at least one of the modalities must be there.
        modalities: those of the model, in its order, with mean and std.
        reduction: tile pixels per network pixel; other than 1 resamples (see :func:`resample`) and keeps the shape.

    Returns:
        float32 [C + M, h, w], and the tile's own (H, W).

    Raises:
        DatasetError: no modality of the model is there, or one has the wrong shape.
    """
    height, width = chip_size(chip, modalities)
    bands, planes = [], []
    for modality in modalities:
        values: FloatArray = np.zeros((len(modality.bands), height, width), dtype=np.float32)
        valid: BoolArray = np.zeros((height, width), dtype=bool)
        if modality.name in chip.arrays:
            array = chip.arrays[modality.name]
            given = chip.valid.get(modality.name, True)
            valid = np.logical_and(np.isfinite(array).all(axis=0), given)
            mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (modality.mean, modality.std))
            values = np.where(valid, (array - mean) / std, np.float32(0))
        bands.append(values)
        planes.append(valid[None].astype(np.float32))
    tensor = torch.from_numpy(np.concatenate([*bands, *planes]).astype(np.float32))
    return resample(tensor, modalities, network_size((height, width), reduction)), (height, width)


def network_size(size: tuple[int, int], reduction: float) -> tuple[int, int]:
    """What a tile or window of a size (H, W) becomes at so many ground pixels per network pixel: (h, w), at least 1."""
    height, width = (max(1, round(side / reduction)) for side in size)
    return height, width


def resample(tensor: torch.Tensor, modalities: Sequence[ModalitySpec], size: tuple[int, int]) -> torch.Tensor:
    """Resample a network input [C + M, H, W] to a size (h, w).

    Bands are averaged or interpolated (bilinear, antialiased) over their valid pixels alone; validity is that of the
    nearest pixel.
    """
    if tuple(tensor.shape[1:]) == size:
        return tensor
    planes = tensor[-len(modalities) :]
    weight = F.interpolate(planes[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    valid = F.interpolate(planes[None], size=size, mode="nearest-exact")[0] * (weight > 1e-3)
    bands = F.interpolate(
        tensor[None, : -len(modalities)], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]
    counts = torch.tensor([len(m.bands) for m in modalities])
    share = torch.where(valid > 0, 1 / weight.clamp(min=1e-3), 0.0).repeat_interleave(counts, dim=0)
    return torch.cat([bands * share, valid])


def chip_driver(file: Path) -> str:
    """GDAL's driver for a chip, told by its first bytes.

    Raises:
        DatasetError: it is none of :data:`SIGNATURES`.
    """
    with file.open("rb") as stream:
        head = stream.read(4)
    for signature, driver in SIGNATURES.items():
        if head.startswith(signature):
            return driver
    raise DatasetError(f"{file} cannot be read (it is no GeoTIFF, PNG or JPEG): export the chip again.")
