"""Data-level fusion."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ml_backend.detector.model.fusion.base import Fusion


class Stack(Fusion, name="stack"):
    """The bands of all modalities are the channels of one image with one backbone, so there is nothing left to join.

    Fine-tuning starts as the anchor's detector: the first convolution is the anchor's, with zeros for other bands.
    """

    def join(self, features: Mapping[str, Tensor], validity: Mapping[str, Tensor]) -> Tensor:
        return features[self.anchor]
