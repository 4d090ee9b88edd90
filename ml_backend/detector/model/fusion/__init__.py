"""Fusion of several modalities, one strategy per class.

A strategy is a :class:`Fusion`: a module that maps, at one scale, ``{modality: [B, C, h, w]}`` and ``{modality:
validity [B, 1, h, w] in 0..1}`` to one map [B, C, h, w]. One that :func:`contracts.network.stacks_bands` names fuses no
features, because one backbone gets all bands stacked. To add one: write the class, import it here, name it in
``contracts.network.Fusion``.
"""

from ml_backend.detector.model.fusion.attention import CrossAttention, ResidualCrossAttention
from ml_backend.detector.model.fusion.base import FUSION_STRATEGIES, Fusion
from ml_backend.detector.model.fusion.concatenation import Cbam, ChannelAttention, Convolution, Stack

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
