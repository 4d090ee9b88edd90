"""Joining the feature maps of several modalities, one strategy per class.

A strategy is a module with ``level = "feature"`` that maps, at one scale, ``{modality: [B, C, h, w]}`` and
``{modality: validity [B, 1, h, w] in 0..1}`` to one map [B, C, h, w]; or a class with ``level = "data"``, which joins
nothing because the backbone already saw all bands stacked. To add one: write the class, register it, name it in
``config.FUSIONS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUSION_STRATEGIES: dict[str, type[Fusion]] = {}


class Fusion(nn.Module):
    """Base of the strategies: one instance per scale."""

    level: Literal["data", "feature"] = "feature"

    def __init__(self, channels: int, modalities: Sequence[str], anchor: str) -> None:
        super().__init__()
        self.channels = channels
        self.anchor = anchor
        self.others = tuple(name for name in modalities if name != anchor)

    def __init_subclass__(cls, name: str) -> None:
        FUSION_STRATEGIES[name] = cls

    def forward(self, features: dict[str, Tensor], validity: dict[str, Tensor]) -> Tensor:
        """Join the modalities' maps at one scale."""
        raise NotImplementedError


class Stack(Fusion, name="stack"):
    """Data-level fusion: the bands of all modalities are the channels of one image with one backbone."""

    level = "data"

    def forward(self, features: dict[str, Tensor], validity: dict[str, Tensor]) -> Tensor:
        return features[self.anchor]


class ResidualCrossAttention(Fusion, name="residual_cross_attention"):
    """Residual cross-modality attention (arXiv 2504.17822): anchor + attention of the anchor over the other modalities.

    Every position of the anchor's map asks the other modalities two kinds of places: the same position at full
    resolution (co-registered rasters mostly need just that), and the whole tile pooled to at most ``pool`` x ``pool``
    tokens (context, and tolerance to misregistration). So each query has (modalities - 1) x (pool² + 1) keys, whatever
    the size of the map: at stride 4 of a 512 px tile that is 16,384 queries x 65 keys per modality instead of
    16,384², linear in pixels. Keys without valid pixels are masked; where nothing valid is left, nothing is added.

    The output projection starts at zero, so a new model computes exactly the anchor's features and fine-tuning starts
    from the unimodal detector. (A full matrix is used for the paper's scale because it leaves zero faster than a scalar
    does: all its inputs push it.)
    """

    def __init__(
        self, channels: int, modalities: Sequence[str], anchor: str, head_channels: int = 32, pool: int = 8
    ) -> None:
        super().__init__(channels, modalities, anchor)
        self.heads = max(1, channels // head_channels)
        self.pool = pool
        self.norms = nn.ModuleDict({name: nn.GroupNorm(1, channels) for name in modalities})
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.ModuleDict({name: nn.Conv2d(channels, 2 * channels, 1) for name in self.others})
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, features: dict[str, Tensor], validity: dict[str, Tensor]) -> Tensor:
        anchor = features[self.anchor]
        height, width = anchor.shape[-2:]
        query = self._split(self.query(self.norms[self.anchor](anchor)))  # [B, heads, d, h*w]
        scale = query.shape[2] ** -0.5
        logits, contexts = [], []
        for name in self.others:
            valid = validity[name]
            both = self.key_value[name](self.norms[name](features[name]))
            key, value = (self._split(part) for part in both.chunk(2, dim=1))
            here = (query * key).sum(dim=2, keepdim=True).transpose(2, 3) * scale  # [B, heads, h*w, 1]
            logits.append(here.masked_fill(valid.flatten(2).transpose(1, 2)[:, None] == 0, -torch.inf))
            pooled, covered = self._pool(both, valid)
            pooled_key, pooled_value = (self._split(part) for part in pooled.chunk(2, dim=1))
            there = query.transpose(2, 3) @ pooled_key * scale  # [B, heads, h*w, tokens]
            logits.append(there.masked_fill(covered.flatten(2)[:, None] == 0, -torch.inf))
            contexts.append((value, pooled_value))
        weights = _masked_softmax(torch.cat(logits, dim=3))
        attended, start = torch.zeros_like(query), 0
        for value, pooled_value in contexts:
            tokens = pooled_value.shape[3]
            here, there = weights[..., start : start + 1], weights[..., start + 1 : start + 1 + tokens]
            attended = attended + value * here.transpose(2, 3) + pooled_value @ there.transpose(2, 3)
            start += 1 + tokens
        valid_anywhere = torch.stack([validity[name].amax(dim=(1, 2, 3)) for name in self.others]).amax(dim=0) > 0
        added = self.project(attended.reshape(anchor.shape[0], self.channels, height, width))
        # without this the projection's bias would leak into tiles that have no other modality
        result: Tensor = anchor + added * valid_anywhere[:, None, None, None]
        return result

    def _split(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, heads, C / heads, h*w]."""
        return x.reshape(x.shape[0], self.heads, x.shape[1] // self.heads, -1)

    def _pool(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Average over the valid part of each cell of a pool x pool grid, and how much of the cell is valid."""
        size = (min(self.pool, x.shape[2]), min(self.pool, x.shape[3]))
        covered = F.adaptive_avg_pool2d(valid, size)
        return F.adaptive_avg_pool2d(x * valid, size) / covered.clamp(min=1e-6), covered


def _masked_softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis in which -inf counts nothing; all zero (not NaN) where everything is -inf."""
    top = logits.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(logits.dtype).min)
    weights = (logits - top.detach()).exp()
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12)
