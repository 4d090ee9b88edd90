"""Chips: reading them, and building the network's input tensor from the modalities of a tile.

The network input is float32 [C + M, H, W]: the normalised bands of all modalities in order, then one validity plane
per modality (1 where it has data). Invalid pixels are 0, the mean: a missing modality is one that is invalid
everywhere.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

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

# Accepted formats by first bytes, not by name: a virtual raster could make GDAL open any file or URL.
SIGNATURES = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}


SAMPLE = 1024  # pixels per side of the sample that decides what an alpha band of a large raster means


@dataclass(frozen=True)
class ChipInput:
    """The pixels of a tile.

    Attributes:
        arrays: per modality float32 [C, H, W] in the modality's own units; a missing modality has no entry.
        valid: per modality bool [H, W]; without an entry, the pixels that are finite in all bands are valid.
    """

    arrays: Mapping[str, FloatArray]
    valid: Mapping[str, BoolArray]


def read_chip(file: Path, modality: ModalitySpec, size: tuple[int, int] | None = None) -> tuple[FloatArray, BoolArray]:
    """Read one chip by the rules of :mod:`contracts.pixels` for nodata, mask, alpha, scale and orientation.

    Args:
        file: GeoTIFF, PNG or JPEG.
        modality: what it should hold; its nodata value overrides that of the file.
        size: expected (H, W), after applying the orientation; None accepts at most :data:`MAX_PIXELS` pixels.

    Returns:
        float32 [C, H, W] and its validity, bool [H, W].

    Raises:
        DatasetError: the file cannot be read, or has another size or number of bands.
    """
    try:
        with chip_environment(), OpenChip(file, modality, size) as chip:
            return chip.read()
    except (RasterioError, OSError, MemoryError) as error:
        raise unreadable(file, error) from None


@contextmanager
def chip_environment(**settings: Any) -> Iterator[None]:
    """Set GDAL's options for reading chips in this thread; ``settings`` are further options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # as PNG and JPEG are
        # GDAL's shortcut for whole images fills the rest of a truncated PNG with uninitialised memory
        with rasterio.Env(GDAL_PNG_WHOLE_IMAGE_OPTIM="NO", **settings):
            yield


class OpenChip:
    """An open chip file; the meaning of its pixels is decided once, whichever part of it is read.

    Open and read it within :func:`chip_environment`.

    Attributes:
        raster: the file.
        size: (H, W), after applying the orientation.
    """

    def __init__(
        self, file: Path, modality: ModalitySpec, size: tuple[int, int] | None = None, most: int = MAX_PIXELS
    ) -> None:
        """Open the file and check its bands, size and type; see :func:`read_chip`.

        Args:
            file: see :func:`read_chip`, as ``modality`` and ``size``.
            most: largest number of pixels.

        Raises:
            DatasetError: see :func:`read_chip`.
            RasterioError, OSError: it cannot be opened.
        """
        self._modality = modality
        self.raster: DatasetReader = rasterio.open(file, driver=chip_driver(file))
        try:
            self._bands, self._turned = measured_bands(self.raster), orientation(self.raster, file)
            _check_shape(file, self.raster, modality, size, bands=self._bands, turned=self._turned, most=most)
        except BaseException:
            self.raster.close()
            raise
        self.size: tuple[int, int] = self.raster.shape if self._turned < 5 else self.raster.shape[::-1]
        self._own_mask: bool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.raster.close()

    def read(self, rows: slice | None = None, columns: slice | None = None) -> tuple[FloatArray, BoolArray]:
        """Read all of it or a window; returns what :func:`read_chip` does.

        Raises:
            RasterioError, OSError, MemoryError: it cannot be read.
        """
        window = None if rows is None or columns is None else self._stored(rows, columns)
        raw = self.raster.read(self._bands, window=window)
        if self._own_mask is None:
            self._own_mask = self._trusts_own_mask(raw if window is None else None)
        own = declared_valid(
            self.raster, self._bands, raw, nodata=self._modality.nodata, own_mask=self._own_mask, window=window
        )
        scales = [(self.raster.scales[band - 1], self.raster.offsets[band - 1]) for band in self._bands]
        pairs = [measurements(raw[i : i + 1], *scale) for i, scale in enumerate(scales)]
        array: FloatArray = np.concatenate([values for values, _ in pairs])
        valid: BoolArray = np.logical_and.reduce([own, *(finite for _, finite in pairs)])
        return oriented(array, self._turned), oriented(valid, self._turned)

    def _trusts_own_mask(self, raw: NDArray[Any] | None) -> bool:
        """Whether the file's mask or alpha band means validity, decided on all its pixels or on a sample of them."""
        masked = self._modality.nodata is None and has_own_mask(self.raster, self._bands)
        if not masked or not has_alpha(self.raster, self._bands):
            return True
        if raw is None:
            shape = tuple(min(side, SAMPLE) for side in self.raster.shape)
            raw = self.raster.read(self._bands, out_shape=(len(self._bands), *shape))
        return not hides_imagery(raw, declared_valid(self.raster, self._bands, raw))

    def _stored(self, rows: slice, columns: slice) -> RasterWindow:
        """The window of the stored raster that holds these rows and columns of the oriented image."""
        height, width = self.size
        if self._turned in (3, 4, 7, 8):
            rows = slice(height - rows.stop, height - rows.start)
        if self._turned in (2, 3, 6, 7):
            columns = slice(width - columns.stop, width - columns.start)
        return RasterWindow.from_slices(*((rows, columns) if self._turned < 5 else (columns, rows)))


def _check_shape(
    file: Path,
    raster: Any,
    modality: ModalitySpec,
    size: tuple[int, int] | None,
    *,
    bands: Sequence[int],
    turned: int,
    most: int,
) -> None:
    """Check bands, size and type before any pixel is read: a small file may claim to be huge."""
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
    if width * height > most:
        raise DatasetError(f"{file} is {width} x {height} pixels: cut it into tiles of at most {most:,} pixels.")
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
    """(height, width) of a tile, after checking that all its modalities agree on it.

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
    """The error for a raster that cannot be read."""
    if not os.path.lexists(file) and os.access(file.parent, os.X_OK):
        return DatasetError(f"{file} does not exist: check the path.")
    reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
    return DatasetError(f"{file} cannot be read ({reason}): export the chip again.")


def network_input(
    chip: ChipInput, modalities: Sequence[ModalitySpec], reduction: float = 1.0
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Normalise and resample a tile for the network.

    Args:
        chip: the tile; at least one of the modalities must be there.
        modalities: those of the model, in its order, with mean and std.
        reduction: tile pixels per network pixel; other than 1, resample to it (:func:`resample`).

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
    """The size (h, w) in network pixels, at least 1, of a tile of ``size`` (H, W) in ground pixels."""
    height, width = (max(1, round(side / reduction)) for side in size)
    return height, width


def resample(tensor: torch.Tensor, modalities: Sequence[ModalitySpec], size: tuple[int, int]) -> torch.Tensor:
    """Resample a network input [C + M, H, W] to a size (h, w).

    Bands are interpolated (bilinear, antialiased) over their valid pixels only; validity is that of the nearest pixel.
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
    """GDAL's driver for a chip, by its first bytes.

    Raises:
        DatasetError: it has none of the :data:`SIGNATURES`.
    """
    with file.open("rb") as stream:
        head = stream.read(4)
    for signature, driver in SIGNATURES.items():
        if head.startswith(signature):
            return driver
    raise DatasetError(f"{file} cannot be read (it is not a GeoTIFF, PNG or JPEG): export the chip again.")
