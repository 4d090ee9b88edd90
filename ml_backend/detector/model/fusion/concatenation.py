"""Fusion by concatenation: of the bands (data level), or of the feature maps, then convolved or gated and mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ml_backend.detector.model.fusion.base import Fusion
from ml_backend.detector.model.masked import masked_max, masked_mean


class Stack(Fusion, name="stack"):
    """Data-level fusion: the bands of all modalities are the channels of one image for one backbone.

    Fine-tuning starts as the anchor's detector: the first convolution is the anchor's, with zeros for other bands.
    """

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        return features[self.anchor]


class Convolution(Fusion, name="conv"):
    """One 3 x 3 convolution over the concatenated maps and validity maps of all modalities.

    The validity maps are inputs, so that the convolution can distinguish missing data from features of value zero.

    It starts as the identity on the anchor's channels and zero on everything else, so fine-tuning starts as the
    anchor's detector. The weights of the other modalities leave zero at the first step, because their gradient does not
    depend on their own value.
    """

    def __init__(self, channels: int, modalities: Sequence[str], anchor: str) -> None:
        super().__init__(channels, modalities, anchor)
        inputs = len(self.modalities) * (channels + 1)
        self.mix = nn.Conv2d(inputs, channels, kernel_size=3, padding=1)
        copy_channels(self.mix, self.modalities.index(anchor) * channels)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        maps = [source[name] for source in (features, validity) for name in self.modalities]
        mixed: Tensor = self.mix(torch.cat(maps, dim=1))
        return mixed


class ChannelAttention(Fusion, name="channel_attention"):
    """Squeeze and excitation (arXiv 1709.01507) over the concatenated channels of all modalities, then a 1 x 1 mixture.

    The gates of the channels are computed from each channel's mean over valid positions and the valid share of each
    modality, so a modality can be attenuated on tiles where it is not informative.

    Gates are 2 * sigmoid. The layer before them starts at zero, so they start at exactly 1; the mixture starts as the
    identity on the anchor's channels. So fine-tuning starts as the anchor's detector.
    """

    def __init__(self, channels: int, modalities: Sequence[str], anchor: str, reduction: int = 16) -> None:
        super().__init__(channels, modalities, anchor)
        count = len(self.modalities)
        hidden = max(8, count * channels // reduction)
        self.squeeze = nn.Linear(count * (channels + 1), hidden)
        self.excite = nn.Linear(hidden, count * channels)
        _zero_init(self.excite)
        self.mix = nn.Conv2d(count * channels, channels, 1)
        copy_channels(self.mix, self.modalities.index(anchor) * channels)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        shares = torch.cat([validity[name].mean(dim=(2, 3)) for name in self.modalities], dim=1)
        described = torch.stack(
            [torch.cat([descriptor, shares], dim=1) for descriptor in self._descriptors(features, validity)]
        )
        factors = gate(self.excite(self.squeeze(described).relu()).sum(dim=0))[:, :, None, None]
        maps = torch.cat([features[name] for name in self.modalities], dim=1)
        mixed: Tensor = self.mix(self._weigh_positions(maps * factors, validity))
        return mixed

    def _descriptors(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> list[Tensor]:
        """Descriptors [B, modalities * C] of a tile, from which the gates are computed."""
        return [torch.cat([masked_mean(features[name], validity[name]) for name in self.modalities], dim=1)]

    def _weigh_positions(self, maps: Tensor, validity: Mapping[str, Tensor]) -> Tensor:
        return maps


class Cbam(ChannelAttention, name="cbam"):
    """Convolutional block attention (arXiv 1807.06521) over the concatenated maps: channels first, then positions.

    Channel gates are computed from means and maxima over valid positions by shared layers. The gates of positions are a
    7 x 7 convolution of the mean and the maximum over all channels, and the validity maps. Its weights start at zero,
    so this, too, starts as the anchor's detector (see :class:`ChannelAttention`).
    """

    def __init__(self, channels: int, modalities: Sequence[str], anchor: str, reduction: int = 16) -> None:
        super().__init__(channels, modalities, anchor, reduction)
        self.place = nn.Conv2d(2 + len(self.modalities), 1, kernel_size=7, padding=3)
        _zero_init(self.place)

    def _descriptors(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> list[Tensor]:
        largest = torch.cat([masked_max(features[name], validity[name]) for name in self.modalities], dim=1)
        return [*super()._descriptors(features, validity), largest]

    def _weigh_positions(self, maps: Tensor, validity: Mapping[str, Tensor]) -> Tensor:
        planes = [validity[name] for name in self.modalities]
        pooled = torch.cat([maps.mean(dim=1, keepdim=True), maps.amax(dim=1, keepdim=True), *planes], dim=1)
        return maps * gate(self.place(pooled))


def copy_channels(convolution: nn.Conv2d, first: int) -> None:
    """Initialise a convolution to copy its outputs from the input channels that begin at ``first``."""
    nn.init.zeros_(convolution.weight)
    nn.init.dirac_(convolution.weight[:, first : first + convolution.out_channels])
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def gate(logits: Tensor) -> Tensor:
    """Factors in 0..2; 1 where the logit is zero."""
    return 2 * logits.sigmoid()


def _zero_init(layer: nn.Linear | nn.Conv2d) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
