"""Crops of tiles as small PNGs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml_backend.detector.chips import ChipInput
from ml_backend.detector.masks import BoolArray, FloatArray

SMALLEST = 48  # smallest side of a crop, in pixels
STRETCH = (2, 98)  # percentiles of the tile's valid pixels that become black and white


@dataclass(frozen=True)
class Crop:
    """A rectangle of a tile, in pixels."""

    x: int
    y: int
    width: int
    height: int


def crop_around(box: Sequence[float], width: int, height: int) -> Crop:
    """The box (x, y, w, h) with its surroundings, inside a tile of this size."""
    x, y, w, h = (float(value) for value in box)
    side = int(max(SMALLEST, 2 * w, 2 * h))
    own_width, own_height = min(side, width), min(side, height)
    left = int(np.clip(x + w / 2 - own_width / 2, 0, width - own_width))
    top = int(np.clip(y + h / 2 - own_height / 2, 0, height - own_height))
    return Crop(left, top, own_width, own_height)


def picture(chip: ChipInput, modality: str, crop: Crop) -> str | None:
    """The crop as PNG data URI, transparent where there is no data; None where the tile lacks the modality."""
    if modality not in chip.arrays:
        return None
    pixels = render(chip.arrays[modality], chip.valid[modality])
    rows, columns = slice(crop.y, crop.y + crop.height), slice(crop.x, crop.x + crop.width)
    data = io.BytesIO()
    Image.fromarray(pixels[rows, columns]).save(data, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def render(array: FloatArray, valid: BoolArray) -> npt.NDArray[np.uint8]:
    """Bands [C, H, W] as RGBA [H, W, 4]: the first three as red, green and blue, or the first as grey.

    All bands are stretched alike, so that colours are kept.
    """
    bands = array[:3] if len(array) >= 3 else array[[0, 0, 0]]
    valid = valid & np.isfinite(bands).all(axis=0)
    known = bands[:, valid]
    low, high = np.percentile(known, STRETCH) if known.size else (0.0, 1.0)
    shown = np.clip((np.where(valid, bands, low) - low) / max(high - low, 1e-6), 0, 1)
    pixels: npt.NDArray[np.uint8] = np.round(255 * np.concatenate([shown, valid[None]])).astype(np.uint8)
    return pixels.transpose(1, 2, 0)
