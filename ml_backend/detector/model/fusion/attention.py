"""Feature-level fusion by cross-modality attention, with a residual (the paper's) and without."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ml_backend.detector.model.fusion.base import Fusion
from ml_backend.detector.model.fusion.convolution import pass_anchor
from ml_backend.detector.model.fusion.masked import MaskedGroupNorm, masked_pool


class CrossAttention(Fusion, name="cross_attention"):
    """Attention of the anchor over all modalities; what it gathers replaces the anchor's map.

    Every position of the anchor's map asks each modality for two kinds of places: the same position at full
    resolution (co-registered rasters mostly need just that), and the whole tile pooled to at most ``pool`` x ``pool``
    tokens (context, and tolerance to misregistration). So each query has modalities x (pool² + 1) keys, whatever the
    size of the map: at stride 4 of a 512 px tile that is 16,384 queries x 65 keys per modality instead of 16,384²,
    linear in pixels. Keys without valid pixels are masked.

    The same position has a learnt head start over the pooled places, which at first gives it half of the weight or
    more: with equal chances it would be one key among 65, and what lies right there would drown in the tile's average.

    The anchor is among those asked, as otherwise a tile that has nothing else would come out empty. Without a residual
    this cannot start as the anchor's detector, because attention averages. It starts close to what neck and heads
    know, though: what is gathered from the anchor's map arrives in its own feature space (identity as value and
    output), and fine-tuning has to learn where to look, not what the channels mean.
    """

    def __init__(
        self, channels: int, modalities: Sequence[str], anchor: str, head_channels: int = 32, pool: int = 8
    ) -> None:
        super().__init__(channels, modalities, anchor)
        self.heads = max(1, channels // head_channels)
        self.pool = pool
        self.norms = nn.ModuleDict({name: MaskedGroupNorm(channels) for name in modalities})
        self.query = nn.Conv2d(channels, channels, 1)
        self.here_bias = nn.Parameter(torch.full((self.heads, 1, 1), math.log(pool**2)))
        self.key_value = nn.ModuleDict({name: nn.Conv2d(channels, 2 * channels, 1) for name in self.asked})
        self.project = nn.Conv2d(channels, channels, 1)
        self.start()

    @property
    def asked(self) -> tuple[str, ...]:
        """The modalities that keys and values come from."""
        return self.modalities

    @torch.no_grad()
    def start(self) -> None:
        """Set the weights that say how a new model begins."""
        own = self.key_value[self.anchor].get_parameter
        nn.init.dirac_(own("weight")[self.channels :])
        nn.init.zeros_(own("bias")[self.channels :])
        pass_anchor(self.project, 0)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        gathered: Tensor = self.project(self.attend(features, validity))
        return gathered

    def attend(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        """What each position of the anchor gathers [B, C, h, w]; meaningless in tiles where nothing asked is valid."""
        normed = {name: self.norms[name](features[name], validity[name]) for name in self.modalities}
        query = self._split(self.query(normed[self.anchor]))  # [B, heads, d, h*w]
        query = query * query.shape[2] ** -0.5
        logits, values = [], []
        for name in self.asked:
            valid = validity[name]
            both = self.key_value[name](normed[name])
            key, value = (self._split(part) for part in both.chunk(2, dim=1))
            here = (query * key).sum(dim=2)[..., None] + self.here_bias  # [B, heads, h*w, 1]
            pooled, covered = masked_pool(both, valid, (min(self.pool, valid.shape[2]), min(self.pool, valid.shape[3])))
            pooled_key, pooled_value = (self._split(part) for part in pooled.chunk(2, dim=1))
            there = query.transpose(2, 3) @ pooled_key  # [B, heads, h*w, tokens]
            logits += [here + _bar(valid, here.dtype).transpose(2, 3), there + _bar(covered, there.dtype)]
            values.append((value, pooled_value))
        weights = torch.cat(logits, dim=3).softmax(dim=3)
        parts = torch.split(weights, [x.shape[3] for x in logits], dim=3)
        gathered = [
            value * here.flatten(2)[:, :, None] + pooled_value @ there.transpose(2, 3)
            for (value, pooled_value), here, there in zip(values, parts[::2], parts[1::2], strict=True)
        ]
        attended: Tensor = sum(gathered[1:], gathered[0])
        return attended.reshape(features[self.anchor].shape)

    def _split(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, heads, C / heads, h*w]."""
        return x.reshape(x.shape[0], self.heads, x.shape[1] // self.heads, -1)


def _bar(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to logits [B, 1, 1, h*w]: nothing where valid, else so little that the softmax is exactly zero.

    The lowest number instead of -inf keeps the softmax of a row without any valid place finite.
    """
    return (valid == 0).to(dtype).mul(torch.finfo(dtype).min).flatten(2)[:, None]


class ResidualCrossAttention(CrossAttention, name="residual_cross_attention"):
    """Residual cross-modality attention (arXiv 2504.17822): anchor + attention of the anchor over the other modalities.

    Keys, their number and so the cost are :class:`CrossAttention`'s, of the other modalities alone: the residual brings
    the anchor's own map. Where nothing valid is left to ask, nothing is added.

    The output projection starts at zero, so a new model computes exactly the anchor's features and fine-tuning starts
    from the unimodal detector. (A full matrix is used for the paper's scale because it leaves zero faster than a scalar
    does: all its inputs push it.)

    Where the anchor itself is missing, the base is what its branch makes of the mean image, the same for every tile,
    and what is added to it comes from the other modalities: the answer then rests on these alone.
    """

    @property
    def asked(self) -> tuple[str, ...]:
        """The modalities that keys and values come from."""
        return self.others

    @torch.no_grad()
    def start(self) -> None:
        """Add nothing at first."""
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        added = super().join(features, validity)
        anywhere = torch.cat([validity[name] for name in self.others], dim=1).amax(dim=(1, 2, 3), keepdim=True) > 0
        return features[self.anchor] + added * anywhere
