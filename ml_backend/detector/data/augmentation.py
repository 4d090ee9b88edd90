"""Augmentation of training tiles, applied alike to all modalities and masks.

Each function depends only on the tile and a random generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ml_backend.detector.chips import ChipInput, resample
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import AnnotatedInstance, ModalitySpec
from ml_backend.detector.masks import BoolArray, resize_nearest


@dataclass(frozen=True)
class Sample:
    """A training tile at the network's resolution.

    Attributes:
        pixels: float32 [C + M, H, W], see :mod:`ml_backend.detector.chips`.
        instances: the n objects and ignored regions.
        masks: bool [n, H, W], of the instances.
    """

    pixels: torch.Tensor
    instances: tuple[AnnotatedInstance, ...]
    masks: BoolArray

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[1], self.pixels.shape[2]


def hide_modalities(chip: ChipInput, config: DetectorConfig, rng: np.random.Generator) -> ChipInput:
    """Modality dropout: hide modalities other than the anchor at random, so that the model copes without them."""
    dice = rng.random(len(config.modalities))
    hidden = {
        name
        for name, value in zip(config.modalities, dice, strict=True)
        if name != config.anchor and value < config.modality_dropout
    }
    kept = {name: array for name, array in chip.arrays.items() if name not in hidden}
    return ChipInput(kept, chip.valid) if kept else chip


def jitter(
    sample: Sample, modalities: tuple[ModalitySpec, ...], config: DetectorConfig, rng: np.random.Generator
) -> Sample:
    """Random gain and offset per modality, on normalised valid pixels; exempt modalities stay as they are."""
    pixels, strength = sample.pixels.clone(), config.radiometric_jitter
    for position, (modality, bands) in enumerate(zip(modalities, band_slices(modalities), strict=True)):
        gain, offset = 1 + strength * rng.standard_normal(), strength * rng.standard_normal()
        if modality.name not in config.jitter_exempt:
            valid = pixels[position - len(modalities)]
            pixels[bands] = pixels[bands] * gain + offset * valid
    return replace(sample, pixels=pixels)


def scale_jitter(
    sample: Sample,
    modalities: tuple[ModalitySpec, ...],
    size: tuple[int, int],
    scales: tuple[float, float],
    rng: np.random.Generator,
) -> Sample:
    """Large-scale jitter (Ghiasi et al. 2021, section 3): resize, then crop or pad to a size (h, w).

    The factor is log-uniform, so that halving is as likely as doubling. Where the tile is larger than `size`, a random
    part of it is kept; where it is smaller, it is placed at random, surrounded by pixels without data.
    """
    factor = math.exp(rng.uniform(math.log(scales[0]), math.log(scales[1])))
    scaled = (max(round(sample.size[0] * factor), 1), max(round(sample.size[1] * factor), 1))
    shifts = [
        int(rng.integers(min(0, have - want), max(0, have - want) + 1)) for have, want in zip(scaled, size, strict=True)
    ]
    pixels = _window(resample(sample.pixels, modalities, scaled).numpy(), shifts, size)
    return Sample(
        torch.from_numpy(pixels), sample.instances, _window(resize_nearest(sample.masks, scaled), shifts, size)
    )


def _window(array: npt.NDArray[Any], shifts: list[int], size: tuple[int, int]) -> npt.NDArray[Any]:
    """The window [..., h, w] that begins at `shifts` (row, column; may be negative); 0 outside the array."""
    window = np.zeros((*array.shape[:-2], *size), dtype=array.dtype)
    target, source = [], []
    for shift, have, want in zip(shifts, array.shape[-2:], size, strict=True):
        first, last = max(shift, 0), min(shift + want, have)
        source.append(slice(first, last))
        target.append(slice(first - shift, last - shift))
    window[..., target[0], target[1]] = array[..., source[0], source[1]]
    return window


def turn(sample: Sample, rng: np.random.Generator, upright: bool | None = None) -> Sample:
    """Apply one of the eight symmetries of the square, uniformly chosen.

    Args:
        sample: the tile.
        rng: of the choice.
        upright: True makes an oblong tile higher than wide, False wider than high, by one of the four symmetries that
            do; None allows all eight. It has no effect on square tiles.
    """
    symmetry = int(rng.integers(8))
    height, width = sample.size
    if upright is not None and height != width and (height > width) != (upright == (symmetry % 2 == 0)):
        symmetry ^= 1  # adds or removes a quarter turn
    pixels = torch.from_numpy(apply_symmetry(sample.pixels.numpy(), symmetry))
    return Sample(pixels, sample.instances, apply_symmetry(sample.masks, symmetry))


def apply_symmetry(array: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """One of the eight symmetries of the square (0..7) on the last two axes; 0 is the identity."""
    turned = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if symmetry >= 4 else turned)


def band_slices(modalities: tuple[ModalitySpec, ...]) -> list[slice]:
    """The channels of each modality's bands in a network input."""
    ends = np.cumsum([len(modality.bands) for modality in modalities]).tolist()
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
