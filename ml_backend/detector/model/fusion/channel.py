"""Feature-level fusion by weighing channels, and then places, of the concatenated maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ml_backend.detector.model.fusion.base import Fusion
from ml_backend.detector.model.fusion.convolution import pass_anchor
from ml_backend.detector.model.masked import masked_max, masked_mean


class ChannelAttention(Fusion, name="channel_attention"):
    """Squeeze and excitation (arXiv 1709.01507) over the concatenated channels of all modalities, then a 1 x 1 mixture.

    What a tile is like (each channel's mean over valid places, and how much of each modality is valid) decides by how
    much each channel counts there, so a modality can be turned down on tiles where it says little.

    Gates are 2 * sigmoid, and the layer before them and the mixture start as zero and as the identity on the anchor's
    channels: the gates start at exactly 1, and fine-tuning starts as the anchor's detector.
    """

    def __init__(self, channels: int, modalities: Sequence[str], anchor: str, reduction: int = 16) -> None:
        super().__init__(channels, modalities, anchor)
        count = len(self.modalities)
        hidden = max(8, count * channels // reduction)
        self.squeeze = nn.Linear(count * (channels + 1), hidden)
        self.excite = nn.Linear(hidden, count * channels)
        _silence(self.excite)
        self.mix = nn.Conv2d(count * channels, channels, 1)
        pass_anchor(self.mix, self.modalities.index(anchor) * channels)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        shares = torch.cat([validity[name].mean(dim=(2, 3)) for name in self.modalities], dim=1)
        seen = torch.stack([torch.cat([view, shares], dim=1) for view in self._views(features, validity)])
        factors = gate(self.excite(self.squeeze(seen).relu()).sum(dim=0))[:, :, None, None]
        maps = torch.cat([features[name] for name in self.modalities], dim=1)
        mixed: Tensor = self.mix(self._weigh_places(maps * factors, validity))
        return mixed

    def _views(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> list[Tensor]:
        """What the gates are computed from: descriptions [B, modalities * C] of a tile."""
        return [torch.cat([masked_mean(features[name], validity[name]) for name in self.modalities], dim=1)]

    def _weigh_places(self, maps: Tensor, validity: Mapping[str, Tensor]) -> Tensor:
        return maps


class Cbam(ChannelAttention, name="cbam"):
    """Convolutional block attention (arXiv 1807.06521) over the concatenated maps: channels first, then places.

    Channel gates come from means and maxima of valid places through the same layers. A 7 x 7 convolution over the mean
    and the maximum of all channels, and the validity maps, then says how much each place counts. Its weights start at
    zero, so this too starts as the anchor's detector (see :class:`ChannelAttention`).
    """

    def __init__(self, channels: int, modalities: Sequence[str], anchor: str, reduction: int = 16) -> None:
        super().__init__(channels, modalities, anchor, reduction)
        self.place = nn.Conv2d(2 + len(self.modalities), 1, kernel_size=7, padding=3)
        _silence(self.place)

    def _views(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> list[Tensor]:
        largest = torch.cat([masked_max(features[name], validity[name]) for name in self.modalities], dim=1)
        return [*super()._views(features, validity), largest]

    def _weigh_places(self, maps: Tensor, validity: Mapping[str, Tensor]) -> Tensor:
        planes = [validity[name] for name in self.modalities]
        seen = torch.cat([maps.mean(dim=1, keepdim=True), maps.amax(dim=1, keepdim=True), *planes], dim=1)
        return maps * gate(self.place(seen))


def gate(logits: Tensor) -> Tensor:
    """Factors of 0..2; 1 where the logit is zero."""
    return 2 * logits.sigmoid()


def _silence(layer: nn.Linear | nn.Conv2d) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
