"""Feature-level fusion by convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ml_backend.detector.model.fusion.base import Fusion


class Convolution(Fusion, name="conv"):
    """One 3 x 3 convolution over the concatenated maps and validity maps of all modalities.

    The validity maps are inputs because a convolution cannot otherwise tell a missing modality from an uneventful one.

    It starts as the identity on the anchor's channels and zero on everything else: fine-tuning starts from the
    anchor's detector, whose neck and heads would make nothing of a random mixture. The weights of the other modalities
    leave zero at the first step, because their gradient does not depend on their own value.
    """

    def __init__(self, channels: int, modalities: Sequence[str], anchor: str) -> None:
        super().__init__(channels, modalities, anchor)
        inputs = len(self.modalities) * (channels + 1)
        self.mix = nn.Conv2d(inputs, channels, kernel_size=3, padding=1)
        pass_anchor(self.mix, self.modalities.index(anchor) * channels)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        maps = [source[name] for source in (features, validity) for name in self.modalities]
        mixed: Tensor = self.mix(torch.cat(maps, dim=1))
        return mixed


def pass_anchor(convolution: nn.Conv2d, first: int) -> None:
    """Make a convolution copy as many input channels as it has outputs, from ``first`` on, and ignore the rest."""
    nn.init.zeros_(convolution.weight)
    nn.init.dirac_(convolution.weight[:, first : first + convolution.out_channels])
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
