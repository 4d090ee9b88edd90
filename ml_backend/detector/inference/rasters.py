"""Reading rasters of any size, outside a dataset, window by window."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from ml_backend.detector.chips import ChipInput, OpenChip, chip_driver, chip_environment, unreadable
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.errors import DatasetError
from ml_backend.detector.inference.windows import Window

CACHE_MB = 256  # of unpacked blocks: a row of windows over 30,000 pixels
MOST_PIXELS = 10**10  # larger sizes are more likely a wrong header


@dataclass(frozen=True)
class Georeference:
    """The transform of a raster from pixel corners (x, y) to coordinates in ``crs``."""

    transform: Affine
    crs: CRS


class RasterStack:
    """Co-registered rasters, one per modality, kept open and read window by window; modalities may be missing.

    Read it from one thread, in the order of the windows: GDAL caches up to :data:`CACHE_MB` of decoded blocks.

    Attributes:
        size: (height, width).
        place: of the first raster; None if it has none.
    """

    def __init__(self, files: Mapping[str, Path], modalities: Sequence[ModalitySpec]) -> None:
        """Open them.

        Raises:
            DatasetError: a modality is unknown, a file cannot be read, or not window by window, or the files are not on
                one grid.
        """
        known = {modality.name: modality for modality in modalities}
        self._open: dict[str, tuple[Path, OpenChip]] = {}
        first, grid = None, None
        for name, file in files.items():
            if name not in known:
                raise DatasetError(
                    f"{file} is given as '{name}', but the model takes {', '.join(known)}: name one of those."
                )
            chip = _open_raster(file, known[name])
            self._open[name] = (file, chip)
            own = (chip.size, _georeference(chip.raster))
            if first is None:
                first, grid = file, own
            elif own != grid:
                raise DatasetError(f"{file} is not on the grid of {first}: resample all rasters to one grid.")
        assert grid is not None, "there is at least one file"
        self.size: tuple[int, int] = grid[0]
        self.georeference: Georeference | None = grid[1]

    def read(self, window: Window) -> ChipInput:
        """The pixels of a window.

        Raises:
            DatasetError: a file cannot be read.
        """
        arrays, valid = {}, {}
        for name, (file, chip) in self._open.items():
            try:
                with chip_environment(GDAL_CACHEMAX=CACHE_MB):
                    arrays[name], valid[name] = chip.read(*window.slices)
            except (RasterioError, OSError, MemoryError) as error:
                raise unreadable(file, error) from None
        return ChipInput(arrays, valid)


def _open_raster(file: Path, modality: ModalitySpec) -> OpenChip:
    try:
        with chip_environment():
            chip = OpenChip(file, modality, most=MOST_PIXELS)
    except (RasterioError, OSError, MemoryError) as error:
        raise unreadable(file, error) from None
    for (height, width), kind in zip(chip.raster.block_shapes, chip.raster.dtypes, strict=True):
        if height * width * np.dtype(kind).itemsize > CACHE_MB << 20:
            raise DatasetError(
                f"{file} cannot be read in pieces, as it is stored in blocks of {width} x {height} pixels: "
                "write it in tiles (gdal_translate -co TILED=YES)."
            )
    return chip


def read_georeference(file: Path) -> Georeference | None:
    """The georeference of a raster; None if it has none.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(file, driver=chip_driver(file)) as raster:
                return _georeference(raster)
    except (RasterioError, OSError) as error:
        raise unreadable(file, error) from None


def _georeference(raster: DatasetReader) -> Georeference | None:
    return Georeference(raster.transform, raster.crs) if raster.crs else None
