"""Changes of a training tile that leave its meaning alone, the same for all modalities and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ml_backend.detector.chips import ChipInput
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.masks import BoolArray


def hide_modalities(chip: ChipInput, config: DetectorConfig, rng: np.random.Generator) -> ChipInput:
    """Modality dropout: now and then hide modalities other than the anchor, so that the model copes without them."""
    dice = rng.random(len(config.modalities))
    hidden = {
        name
        for name, value in zip(config.modalities, dice, strict=True)
        if name != config.anchor and value < config.modality_dropout
    }
    kept = {name: array for name, array in chip.arrays.items() if name not in hidden}
    return ChipInput(kept, chip.valid) if kept else chip


def jitter(
    inputs: torch.Tensor, modalities: tuple[ModalitySpec, ...], strength: float, rng: np.random.Generator
) -> None:
    """Random gain and offset per modality, in place, on normalised valid pixels of inputs [C + M, H, W]."""
    start = 0
    for position, modality in enumerate(modalities):
        bands = inputs[start : start + len(modality.bands)]
        gain, offset = 1 + strength * rng.standard_normal(), strength * rng.standard_normal()
        valid = inputs[position - len(modalities)]
        bands.mul_(gain).add_(offset * valid)
        start += len(modality.bands)


def apply_symmetry(array: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """One of the eight symmetries of the square (0..7) on the last two axes; 0 is the identity."""
    turned = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if symmetry >= 4 else turned)


def resize_nearest(masks: BoolArray, size: tuple[int, int]) -> BoolArray:
    """Masks [n, H, W] resampled to [n, h, w]."""
    if masks.shape[1:] == size:
        return masks
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int) for n, m in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows][:, :, columns]
