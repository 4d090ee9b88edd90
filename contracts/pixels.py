"""What the pixels of a raster file mean: one rule for the catalog's scenes and the detector's chips.

- **No data.** NaN, infinities and numbers beyond 1e30 never are measurements. A nodata value that somebody gave
  replaces the file's own nodata and mask. In unsigned bands 0 (or 255) may be a measurement in one band: only a pixel
  that has the nodata value in all bands is empty. In signed and float bands (-9999 in elevations) one such band makes
  the pixel useless. Nodata is declared per band; a band that declares none shares the first value of another.
- **Mask and alpha.** A file's own mask or alpha band says what is valid (0: nothing), unless nodata is declared. An
  alpha band is not a measurement. If what it hides is a picture like what it shows, it is no validity but something
  that somebody stored there (a label mask: a network would learn the hole), and it is left out: `hides_imagery`.
- **Scale and offset** that the file declares are applied: value = stored number * scale + offset. Nodata is compared
  with the stored number.
- **Orientation.** JPEG and PNG pictures without a place on Earth are turned as their EXIF orientation says, as people
  see them. A georeference refers to the pixels as stored, so they stay as they are. TIFF's orientation tag is not
  followed: GDAL and QGIS do not follow it.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

LARGEST = 1e30

# A hidden pixel is blank if it differs from the commonest of them by no more than this share of the shown ones' spread:
# lossy compression leaves traces. What is blank in fewer than three of four hidden pixels is a picture.
_BLANK_SPREAD = 0.1
_BLANK_SHARE = 0.75

_EXIF_ORIENTATION = 0x0112
_MOST_CHUNKS = 100_000
_LARGEST_EXIF = 1 << 20


def measured_bands(dataset: DatasetReader) -> list[int]:
    """The bands (from 1) that hold measurements: all but alpha."""
    return [i for i, color in enumerate(dataset.colorinterp, start=1) if color != ColorInterp.alpha]


def has_own_mask(dataset: DatasetReader, bands: Sequence[int]) -> bool:
    """Whether the file says by a mask or an alpha band what is valid."""
    return MaskFlags.per_dataset in dataset.mask_flag_enums[bands[0] - 1]


def has_alpha(dataset: DatasetReader, bands: Sequence[int]) -> bool:
    """Whether the file says by an alpha band what is valid."""
    return MaskFlags.alpha in dataset.mask_flag_enums[bands[0] - 1]


def declared_valid(
    dataset: DatasetReader,
    bands: Sequence[int],
    raw: NDArray[Any],
    *,
    nodata: float | None = None,
    own_mask: bool = True,
    window: Window | None = None,
) -> NDArray[np.bool_]:
    """Where a file declares data.

    Args:
        dataset: The open file.
        bands: Those read, from 1.
        raw: What was read [C, H, W], as stored.
        nodata: A value that replaces what the file says.
        own_mask: Whether the file's mask or alpha band counts.
        window: What was read of the file; None: all.

    Returns:
        bool [H, W]. Numbers that never are measurements are not looked for: see `measurements`.
    """
    if nodata is None and own_mask and has_own_mask(dataset, bands):
        mask = dataset.read_masks(bands[0], window=window, out_shape=raw.shape[1:], resampling=Resampling.nearest)
        return np.asarray(mask > 0)
    declared = [nodata] * len(bands) if nodata is not None else [dataset.nodatavals[band - 1] for band in bands]
    shared = next((value for value in declared if value is not None), None)
    if shared is None:
        return np.ones(raw.shape[1:], dtype=bool)
    return ~_empty(raw, [shared if value is None else value for value in declared])


def _empty(raw: NDArray[Any], nodata: Sequence[float]) -> NDArray[np.bool_]:
    """Where a pixel [H, W] has its bands' nodata value."""
    same = np.stack([_equals(band, value) for band, value in zip(raw, nodata, strict=True)])
    return np.asarray(same.all(axis=0) if raw.dtype.kind == "u" else same.any(axis=0))


def _equals(band: NDArray[Any], value: float) -> NDArray[np.bool_]:
    if np.isnan(value):
        return np.asarray(np.isnan(band))
    if band.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(band == np.asarray(value).astype(band.dtype))
    return np.asarray(band == value)


def measurements(raw: NDArray[Any], scale: float = 1.0, offset: float = 0.0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Stored numbers as measured values.

    Returns:
        float32 [C, H, W], and bool [H, W]: where every band holds a number that can be a measurement.
    """
    # Nodata such as -1.7e308 becomes infinite in float32, or nearly so.
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float32)
        valid = (np.abs(values) <= LARGEST).all(axis=0)
        if scale != 1.0 or offset != 0.0:
            values = values * np.float32(scale) + np.float32(offset)
    return values, np.asarray(valid)


def hides_imagery(raw: NDArray[Any], shown: NDArray[np.bool_]) -> bool:
    """Whether a mask hides a picture rather than blank pixels.

    Args:
        raw: [C, H, W] or [C, N], as stored, alpha left out.
        shown: [H, W] or [N], what the mask calls valid.
    """
    pixels: NDArray[np.float64] = raw.reshape(len(raw), -1).astype(np.float64)
    finite = np.isfinite(pixels).all(axis=0)
    pixels, shown = pixels[:, finite], shown.ravel()[finite]
    hidden = pixels[:, ~shown]
    if hidden.shape[1] == 0:
        return False
    seen = pixels[:, shown] if shown.any() else hidden
    spread = np.ptp(np.percentile(seen, (2, 98), axis=1), axis=0)
    different = np.abs(hidden - np.median(hidden, axis=1)[:, None]) > _BLANK_SPREAD * spread[:, None]
    return bool(different.any(axis=0).mean() > 1 - _BLANK_SHARE)


def orientation(dataset: DatasetReader, file: Path) -> int:
    """The EXIF orientation (1 to 8) by which a picture is to be turned; 1 where its georeference counts instead."""
    if dataset.crs is not None or not dataset.transform.is_identity:
        return 1
    return declared_orientation(dataset, file)


def declared_orientation(dataset: DatasetReader, file: Path) -> int:
    """The EXIF orientation (1 to 8) that a JPEG or PNG file declares; 1 if it declares none that there is."""
    said: Any = 1
    if dataset.driver == "JPEG":
        said = dataset.tags().get("EXIF_Orientation", "1").strip()
    elif dataset.driver == "PNG":  # GDAL does not look for it there
        with file.open("rb") as stream:
            said = _png_orientation(stream)
    return int(said) if str(said) in {"1", "2", "3", "4", "5", "6", "7", "8"} else 1


def _png_orientation(stream: BinaryIO) -> int:
    """The orientation in a PNG's eXIf chunk (PNG 1.5 extensions, 3.7), looked for without decoding the picture."""
    stream.seek(8)
    for _ in range(_MOST_CHUNKS):
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] == b"eXIf":
            return _exif_orientation(stream.read(min(length, _LARGEST_EXIF)))
        stream.seek(length + 4, 1)
    return 1


def _exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block: a short in the first directory of a TIFF header."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return 1
    (start,) = struct.unpack(f"{order}I", block[4:8])
    count = struct.unpack(f"{order}H", block[start : start + 2])[0] if start + 2 <= len(block) else 0
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if entry + 12 > len(block):
            break
        tag, _, _, value = struct.unpack(f"{order}HHIH", block[entry : entry + 10])
        if tag == _EXIF_ORIENTATION:
            return int(value)
    return 1


def oriented(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array [..., H, W] turned as an EXIF orientation says (EXIF 2.32, 4.6.4 A)."""
    if orientation >= 5:
        array = array.swapaxes(-1, -2)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    if flip_rows:
        array = array[..., ::-1, :]
    if flip_columns:
        array = array[..., ::-1]
    return np.ascontiguousarray(array)
