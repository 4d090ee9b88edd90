"""One MViTv2 per modality, joined at every scale before the FPN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ml_backend.detector.model.fusion import FUSION_STRATEGIES
from ml_backend.detector.model.openmmlab import MODELS

STACKED = "stacked"


@MODELS.register_module()
class MultimodalBackbone(nn.Module):
    """Backbones of several modalities and their fusion.

    Args:
        modalities: names, in the order of the input's channels.
        bands: number of bands of each modality.
        anchor: the modality whose features the others are added to.
        branch: mmdet config of one backbone, without ``in_channels``; gives one map per scale.
        scales: channels of the backbone's maps.
        fusion: a name in :data:`ml_backend.detector.model.fusion.FUSION_STRATEGIES`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        bands: Sequence[int],
        anchor: str,
        branch: Mapping[str, Any],
        scales: Sequence[int],
        fusion: str,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.bands = tuple(bands)
        strategy = FUSION_STRATEGIES[fusion]
        self.stacked = strategy.level == "data" and len(self.modalities) > 1
        own = dict(zip(self.modalities, self.bands, strict=True))
        inputs = {STACKED: sum(self.bands)} if self.stacked else own
        self.branches = nn.ModuleDict(
            {name: MODELS.build({**branch, "in_channels": channels}) for name, channels in inputs.items()}
        )
        joins = not self.stacked and len(self.modalities) > 1
        self.fusion = nn.ModuleList(strategy(channels, self.modalities, anchor) for channels in scales if joins)

    def init_weights(self) -> None:
        """Initialise the backbones; the fusion initialises itself."""
        for branch in self.branches.values():
            branch.init_weights()  # type: ignore[operator]

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of a batch.

        Args:
            inputs: [B, C + M, H, W] as made by :func:`ml_backend.detector.chips.network_input`.

        Returns:
            One map [B, channels, H / stride, W / stride] per scale.
        """
        *images_of, planes_of = torch.split(inputs, [*self.bands, len(self.modalities)], dim=1)
        images = dict(zip(self.modalities, images_of, strict=True))
        if not self.fusion:
            (branch,) = self.branches.values()
            features: tuple[Tensor, ...] = branch(torch.cat(list(images.values()), dim=1))
            return features
        planes = dict(zip(self.modalities, torch.split(planes_of, 1, dim=1), strict=True))
        maps = {name: self.branches[name](image) for name, image in images.items()}
        joined = []
        for scale, fusion in enumerate(self.fusion):
            size = maps[self.modalities[0]][scale].shape[-2:]
            validity = {name: F.adaptive_avg_pool2d(plane, size) for name, plane in planes.items()}
            joined.append(fusion({name: scales[scale] for name, scales in maps.items()}, validity))
        return tuple(joined)
