"""One MViTv2 per modality, fused at every scale before the FPN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contracts.network import stacks_bands
from ml_backend.detector.config import STACKED
from ml_backend.detector.model.fusion import FUSION_STRATEGIES
from ml_backend.detector.model.openmmlab import MODELS


@MODELS.register_module()
class MultimodalBackbone(nn.Module):
    """Backbones of several modalities and their fusion.

    Values of invalid pixels have no effect: they are set to zero, the mean, before a branch sees them, and its
    attention and the fusion leave out positions where a modality is invalid. So a missing modality gives exactly the
    same result as one that is invalid everywhere. A missing anchor still has a feature map, that of the mean image, to
    which the others are added.

    Args:
        modalities: names, in the order of the input's channels.
        bands: number of bands of each modality.
        anchor: the modality whose features the others are added to.
        branch: mmdet config of one backbone, without ``in_channels``; it is called with an image and its validity, and
            returns one map per scale.
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
        self.anchor = anchor
        strategy = FUSION_STRATEGIES[fusion]
        self.stacked = stacks_bands(fusion) and len(self.modalities) > 1
        own = dict(zip(self.modalities, self.bands, strict=True))
        inputs = {STACKED: sum(self.bands)} if self.stacked else own
        self.branches = nn.ModuleDict(
            {name: MODELS.build({**branch, "in_channels": channels}) for name, channels in inputs.items()}
        )
        joins = not self.stacked and len(self.modalities) > 1
        self.fusion = nn.ModuleList(strategy(channels, self.modalities, anchor) for channels in scales if joins)

    def init_weights(self) -> None:
        """Initialise the backbones; the fusion is initialised by its constructor."""
        for branch in self.branches.values():
            branch.init_weights()  # type: ignore[operator]

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of a batch.

        Args:
            inputs: [B, C + M, H, W] as made by :func:`ml_backend.detector.chips.network_input`.

        Returns:
            One map [B, channels, H / stride, W / stride] per scale.
        """
        parts = torch.split(inputs, [*self.bands, *[1] * len(self.modalities)], dim=1)
        bands, planes = parts[: len(self.bands)], parts[len(self.bands) :]
        clean = [image.masked_fill(plane == 0, 0) for image, plane in zip(bands, planes, strict=True)]
        validity = torch.cat(planes, dim=1)
        if not self.fusion:
            (branch,) = self.branches.values()
            anywhere = validity.amax(dim=1, keepdim=True)
            features: tuple[Tensor, ...] = branch(torch.cat(clean, dim=1), *_gaps([anywhere]))
            return features
        images = dict(zip(self.modalities, zip(clean, _gaps(planes), strict=True), strict=True))
        maps = {name: self.branches[name](*images[name]) for name in self._needed(validity)}
        joined = []
        for scale, fusion in enumerate(self.fusion):
            anchor = maps[self.anchor][scale]
            shares = torch.split(F.adaptive_avg_pool2d(validity, anchor.shape[-2:]), 1, dim=1)
            features_of = {
                name: maps[name][scale] if name in maps else torch.zeros_like(anchor) for name in self.modalities
            }
            joined.append(fusion(features_of, dict(zip(self.modalities, shares, strict=True))))
        return tuple(joined)

    def _needed(self, validity: Tensor) -> tuple[str, ...]:
        """The modalities whose branch has to run: the anchor, and others that any tile of the batch has.

        All of them in training, where every weight needs a gradient, and while a graph is traced.
        """
        if _is_traced() or torch.is_grad_enabled():
            return self.modalities
        present = validity.amax(dim=(0, 2, 3)).tolist()
        return tuple(n for n, share in zip(self.modalities, present, strict=True) if share or n == self.anchor)


def _gaps(planes: Sequence[Tensor]) -> list[Tensor | None]:
    """For each modality its validity if any tile is partly valid; None if every tile is completely valid or invalid.

    In the latter case masking has no effect and is skipped. While a graph is traced, every tile may have gaps.
    """
    if _is_traced():
        return list(planes)
    valid = torch.stack([(plane != 0).flatten(1) for plane in planes])
    gaps = (valid.any(dim=2) & ~valid.all(dim=2)).any(dim=1).tolist()
    return [plane if has_gaps else None for plane, has_gaps in zip(planes, gaps, strict=True)]


def _is_traced() -> bool:
    """Whether a graph is being traced."""
    return bool(torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
