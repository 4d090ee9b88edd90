"""Feature-level fusion by cross-modality attention, with a residual (the paper's) and without."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ml_backend.detector.model.fusion.base import Fusion
from ml_backend.detector.model.masked import logit_mask, masked_pool


class CrossAttention(Fusion, name="cross_attention"):
    """Attention of the anchor over all modalities; what it gathers replaces the anchor's map.

    Every position of the anchor's map asks each modality for two kinds of places: the same position at full
    resolution (co-registered rasters mostly need just that), and the whole tile pooled to at most ``pool`` x ``pool``
    tokens (context, and tolerance to misregistration). So each query has modalities x (pool² + 1) keys, whatever the
    size of the map: at stride 4 of a 512 px tile that is 16,384 queries x 65 keys per modality instead of 16,384²,
    linear in pixels. Keys without valid pixels are masked.

    Maps are normalised place by place, so that nodata shifts nothing beside it.

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
        self.norms = nn.ModuleDict({name: nn.LayerNorm(channels) for name in dict.fromkeys((anchor, *self.sources))})
        self.query = nn.Linear(channels, channels)
        self.here_bias = nn.Parameter(torch.full((self.heads, 1, 1), math.log(pool**2)))
        self.key_value = nn.ModuleDict({name: nn.Linear(channels, 2 * channels) for name in self.sources})
        self.project = nn.Linear(channels, channels)
        self.reset_parameters()

    @property
    def sources(self) -> tuple[str, ...]:
        """The modalities that keys and values come from."""
        return self.modalities

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the weights that say how a new model begins."""
        self._init_values_as_identity(self.anchor)
        nn.init.eye_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def _init_values_as_identity(self, name: str) -> None:
        """Gather from a modality just what its map holds."""
        layer = self.key_value[name].get_parameter
        nn.init.eye_(layer("weight")[self.channels :])
        nn.init.zeros_(layer("bias")[self.channels :])

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        gathered = self.project(self.attend(features, validity))
        return _as_map(gathered, features[self.anchor])

    def attend(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        """What each position of the anchor gathers [B, h*w, C]; meaningless where a tile has nothing valid to ask."""
        tokens = {n: self.norms[n](_as_tokens(features[n])) for n in self.norms}
        query = self._split(self.query(tokens[self.anchor]))
        query = query * query.shape[3] ** -0.5
        logits, values = [], []
        for name in self.sources:
            valid = validity[name]
            key, value = self._keys_and_values(name, tokens[name])
            here = (query * key).sum(dim=3, keepdim=True) + self.here_bias
            grid = (min(self.pool, valid.shape[2]), min(self.pool, valid.shape[3]))
            pooled, covered = masked_pool(_as_map(tokens[name], valid), valid, grid)
            pooled_key, pooled_value = self._keys_and_values(name, _as_tokens(pooled))
            there = query @ pooled_key.mT
            logits += [here + logit_mask(valid, here.dtype).mT, there + logit_mask(covered, there.dtype)]
            values.append((value, pooled_value))
        weights = torch.cat(logits, dim=3).softmax(dim=3)
        parts = torch.split(weights, [x.shape[3] for x in logits], dim=3)
        gathered = [
            value * here + there @ pooled_value
            for (value, pooled_value), here, there in zip(values, parts[::2], parts[1::2], strict=True)
        ]
        attended: Tensor = sum(gathered[1:], gathered[0])
        return attended.transpose(1, 2).flatten(2)

    def _keys_and_values(self, name: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of one modality's tokens [B, n, C], each [B, heads, n, C / heads]."""
        key, value = self.key_value[name](tokens).chunk(2, dim=2)
        return self._split(key), self._split(value)

    def _split(self, tokens: Tensor) -> Tensor:
        """[B, n, C] to [B, heads, n, C / heads]."""
        return torch.unflatten(tokens, 2, (self.heads, -1)).transpose(1, 2)


def _as_tokens(maps: Tensor) -> Tensor:
    """[B, C, h, w] to [B, h*w, C]."""
    return maps.flatten(2).mT


def _as_map(tokens: Tensor, like: Tensor) -> Tensor:
    """[B, h*w, C] to [B, C, h, w], of a map of these places."""
    return torch.unflatten(tokens.mT, 2, like.shape[2:])


class ResidualCrossAttention(CrossAttention, name="residual_cross_attention"):
    """Residual cross-modality attention (arXiv 2504.17822): anchor + attention of the anchor over the other modalities.

    Keys, their number and so the cost are :class:`CrossAttention`'s, of the other modalities alone: the residual brings
    the anchor's own map. Where nothing valid is left to ask, nothing is added.

    The output projection starts at zero, so a new model computes exactly the anchor's features and fine-tuning starts
    from the unimodal detector. (A full matrix is used for the paper's scale because it leaves zero faster than a scalar
    does: all its inputs push it. What it is fed are at first the features of the other modalities themselves, which
    say more than a random mixture of them.)

    Where the anchor itself is missing, the base is what its branch makes of the mean image, the same for every tile,
    and what is added to it comes from the other modalities: the answer then rests on these alone.
    """

    @property
    def sources(self) -> tuple[str, ...]:
        """The modalities that keys and values come from."""
        return self.others

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Add nothing at first."""
        for name in self.sources:
            self._init_values_as_identity(name)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        added = super().join(features, validity)
        anywhere = torch.cat([validity[name] for name in self.others], dim=1).amax(dim=(1, 2, 3), keepdim=True) > 0
        return features[self.anchor] + added * anywhere
