"""Feature-level fusion by cross-modality attention, with a residual (the paper's) and without."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ml_backend.detector.model.fusion.base import Fusion
from ml_backend.detector.model.masked import logit_mask, masked_pool


class CrossAttention(Fusion, name="cross_attention"):
    """Attention of the anchor over all modalities; the result replaces the anchor's map.

    Every position of the anchor's map attends, in each modality, to the same position at full resolution (co-registered
    rasters mostly need only that), and to the whole tile pooled to at most ``pool`` x ``pool`` tokens (context, and
    tolerance to misregistration). So each query has modalities x (pool² + 1) keys, whatever the
    size of the map: at stride 4 of a 512 px tile that is 16,384 queries x 65 keys per modality instead of 16,384²,
    linear in pixels. Keys without valid pixels are masked.

    Maps are normalised per position, so that positions without data do not affect their neighbours.

    The logit of the same position has a learnt bias, which initially gives it at least half of the weight: without it,
    it would be one key among 65 and be dominated by the tile's average.

    The anchor is among the sources, since a tile without other modalities would have no keys otherwise. Without a
    residual the model cannot start as the anchor's detector, because attention averages. It starts close to it: value
    and output projections of the anchor are the identity, so neck and heads get features in the space they were trained
    on, and fine-tuning has to learn where to attend, not what the channels mean.
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
        """Set the initial weights that are not random."""
        self._init_values_as_identity(self.anchor)
        nn.init.eye_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def _init_values_as_identity(self, name: str) -> None:
        """Make the value projection of a modality the identity."""
        layer = self.key_value[name].get_parameter
        nn.init.eye_(layer("weight")[self.channels :])
        nn.init.zeros_(layer("bias")[self.channels :])

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        gathered = self.project(self.attend(features, validity))
        return _as_map(gathered, features[self.anchor])

    def attend(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        """The attention's result at the positions of the anchor [B, h*w, C]; undefined for tiles without valid keys."""
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
    """[B, h*w, C] to [B, C, h, w], with the size of ``like``."""
    return torch.unflatten(tokens.mT, 2, like.shape[2:])


class ResidualCrossAttention(CrossAttention, name="residual_cross_attention"):
    """Residual cross-modality attention (arXiv 2504.17822): anchor + attention of the anchor over the other modalities.

    Keys and cost are those of :class:`CrossAttention`, for the other modalities only, since the residual contributes
    the anchor's own map. Tiles without valid keys are not changed.

    The output projection starts at zero, so a new model computes exactly the anchor's features and fine-tuning starts
    from the unimodal detector. (A full matrix replaces the paper's scalar scale because it leaves zero faster. Its
    initial inputs are the features of the other modalities themselves, which are more useful than a random mixture.)

    Where the anchor itself is missing, its map is that of the mean image, the same for every tile, so the result
    depends only on the other modalities.
    """

    @property
    def sources(self) -> tuple[str, ...]:
        """The modalities that keys and values come from."""
        return self.others

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initially add nothing: the output projection is zero."""
        for name in self.sources:
            self._init_values_as_identity(name)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        added = super().join(features, validity)
        anywhere = torch.cat([validity[name] for name in self.others], dim=1).amax(dim=(1, 2, 3), keepdim=True) > 0
        return features[self.anchor] + added * anywhere
