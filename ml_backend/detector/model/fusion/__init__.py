"""Joining the feature maps of several modalities, one strategy per class.

A strategy is a :class:`Fusion`: a module with ``level = "feature"`` that maps, at one scale, ``{modality: [B, C, h,
w]}`` and ``{modality: validity [B, 1, h, w] in 0..1}`` to one map [B, C, h, w]; or a class with ``level = "data"``,
which joins nothing because the backbone already saw all bands stacked. To add one: write the class, import it here,
name it in ``config.FUSIONS``.
"""

from ml_backend.detector.model.fusion.attention import CrossAttention, ResidualCrossAttention
from ml_backend.detector.model.fusion.base import FUSION_STRATEGIES, Fusion, joins_data
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
    "joins_data",
]
