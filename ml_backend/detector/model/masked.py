"""Statistics and attention that leave out what is not valid.

Weights are validity shares [B, 1, h, w] in 0..1. A map of which nothing is valid counts as a whole: of a modality other
than the anchor it is zero then, and the anchor's is what its branch makes of the mean image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def position_weights(valid: Tensor) -> Tensor:
    """The weights of positions: their validity, or 1 everywhere in a map without any."""
    return torch.where(valid.amax(dim=(1, 2, 3), keepdim=True) > 0, valid, torch.ones_like(valid)).float()


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean [B, C] of x [B, C, h, w] over valid positions."""
    weight = position_weights(valid)
    return (x * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))


def masked_max(x: Tensor, valid: Tensor) -> Tensor:
    """Maximum [B, C] of x [B, C, h, w] over positions that are valid at all."""
    return x.masked_fill(position_weights(valid) == 0, torch.finfo(x.dtype).min).amax(dim=(2, 3))


def masked_pool(x: Tensor, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Average of x over the valid part of each cell of a grid, and the share of the cell that is valid."""
    covered = F.adaptive_avg_pool2d(valid, size)
    return F.adaptive_avg_pool2d(x * valid, size) / covered.clamp(min=1e-6), covered


def logit_mask(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to logits [B, 1, 1, h*w]: nothing where valid, else so little that the softmax is exactly zero.

    The lowest number instead of -inf keeps the softmax of a row without any valid place finite.
    """
    return (valid == 0).to(dtype).mul(torch.finfo(dtype).min).flatten(2)[:, None]


def has_valid_input(valid: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Where a convolution sees anything valid, [B, 1, h', w'] of [B, 1, h, w]."""
    window = (convolution.kernel_size, convolution.stride, convolution.padding)
    return F.max_pool2d(valid, *window)  # type: ignore[arg-type]
