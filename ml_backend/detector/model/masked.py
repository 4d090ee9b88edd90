"""Statistics and attention masks that leave out invalid positions.

Validity is the share of valid pixels under each position, [B, 1, h, w] in 0..1. A map without any valid position counts
as valid everywhere: it is zero for a modality other than the anchor, and the features of the mean image for the anchor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def position_weights(valid: Tensor) -> Tensor:
    """The weights of positions [B, 1, h, w]: their validity, or 1 everywhere in a map without valid positions."""
    return torch.where(valid.amax(dim=(1, 2, 3), keepdim=True) > 0, valid, torch.ones_like(valid)).float()


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean [B, C] of x [B, C, h, w] over valid positions."""
    weight = position_weights(valid)
    return (x * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))


def masked_max(x: Tensor, valid: Tensor) -> Tensor:
    """Maximum [B, C] of x [B, C, h, w] over positions with any valid pixel."""
    return x.masked_fill(position_weights(valid) == 0, torch.finfo(x.dtype).min).amax(dim=(2, 3))


def masked_pool(x: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean of x [B, C, h, w] over the valid part of each cell of a grid [B, C, *size], and the cells' valid shares."""
    covered = F.adaptive_avg_pool2d(valid, size)
    return F.adaptive_avg_pool2d(x * valid, size) / covered.clamp(min=1e-6), covered


def logit_mask(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive attention mask [B, 1, 1, h*w]: 0 where valid, else so low that the softmax is exactly zero.

    The lowest finite number instead of -inf keeps the softmax of a row without any valid position finite.
    """
    return (valid == 0).to(dtype).mul(torch.finfo(dtype).min).flatten(2)[:, None]


def has_valid_input(valid: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Whether any input of a convolution is valid, [B, 1, h', w'] from validity [B, 1, h, w]."""
    window = (convolution.kernel_size, convolution.stride, convolution.padding)
    return F.max_pool2d(valid, *window)  # type: ignore[arg-type]
