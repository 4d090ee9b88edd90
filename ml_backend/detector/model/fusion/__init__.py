"""Joining the feature maps of several modalities, one strategy per class.

A strategy is a :class:`Fusion`: a module that maps, at one scale, ``{modality: [B, C, h, w]}`` and ``{modality:
validity [B, 1, h, w] in 0..1}`` to one map [B, C, h, w]. One that :func:`contracts.network.joins_data` names joins
nothing, because the backbone already saw all bands stacked. To add one: write the class, import it here, name it in
``contracts.network.Fusion``.
"""

from ml_backend.detector.model.fusion.attention import CrossAttention, ResidualCrossAttention
from ml_backend.detector.model.fusion.base import FUSION_STRATEGIES, Fusion
from ml_backend.detector.model.fusion.channel import Cbam, ChannelAttention
from ml_backend.detector.model.fusion.convolution import Convolution
from ml_backend.detector.model.fusion.stack import Stack

__all__ = [
    "FUSION_STRATEGIES",
    "Cbam",
    "ChannelAttention",
    "Convolution",
    "CrossAttention",
    "Fusion",
    "ResidualCrossAttention",
    "Stack",
]
