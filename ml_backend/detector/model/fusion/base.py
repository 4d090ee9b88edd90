"""The base class of fusion strategies, and their registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

FUSION_STRATEGIES: dict[str, type[Fusion]] = {}


class Fusion(nn.Module):
    """Base of the strategies: one instance per scale.

    It excludes invalid positions for all strategies: where a modality other than the anchor has no data at all, its
    features are set to zero. Branch features are layer-normalised, so they never take this value otherwise, and the
    meaning of missing data can be learnt from it and from the validity maps. The anchor's map is not changed: neck and
    heads were trained on it, and where the anchor lacks data (its branch gets the mean there) it is still the best
    available base for what the others add.

    Args:
        channels: C, the same for all modalities.
        modalities: names in input order, the anchor among them.
        anchor: the modality whose detector a multimodal model starts from.
    """

    def __init__(self, channels: int, modalities: Sequence[str], anchor: str) -> None:
        super().__init__()
        self.channels = channels
        self.modalities = tuple(modalities)
        self.anchor = anchor
        self.others = tuple(name for name in modalities if name != anchor)

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            FUSION_STRATEGIES[name] = cls

    def forward(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        """Join the modalities' maps at one scale.

        Args:
            features: per modality [B, C, h, w].
            validity: per modality [B, 1, h, w], the share of valid pixels under each position, 0..1.

        Returns:
            [B, C, h, w].
        """
        clean = {name: features[name].masked_fill(validity[name] == 0, 0) for name in self.others}
        return self.join({**clean, self.anchor: features[self.anchor]}, validity)

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        """The strategy itself: as :meth:`forward`, with the others' features zero where invalid."""
        raise NotImplementedError
