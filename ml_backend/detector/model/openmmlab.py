"""The one door to mmcv, mmdet, mmengine and mmpretrain: installs the ops first, then imports what the detector uses."""

from __future__ import annotations

import warnings

from ml_backend.detector.model import ops

ops.install()

with warnings.catch_warnings():
    # mmpretrain warns about optional multimodal extras at import; nothing a user of the detector can act on
    warnings.simplefilter("ignore")
    import mmdet.models  # noqa: F401  (fills the registry)
    from mmdet.models.layers import multiclass_nms
    from mmdet.models.roi_heads import CascadeRoIHead, SingleRoIExtractor
    from mmdet.models.task_modules import MaxIoUAssigner
    from mmdet.registry import MODELS, TASK_UTILS
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import bbox2roi
    from mmdet.structures.mask import BitmapMasks
    from mmengine.config import ConfigDict
    from mmengine.logging import MMLogger
    from mmengine.structures import InstanceData
    from mmpretrain.models.backbones.mvit import (  # (registers mmpretrain.MViT)
        MultiScaleAttention,
        MultiScaleBlock,
        MViT,
        attention_pool,
        resize_decomposed_rel_pos,
    )

# without this every build narrates the initialisation of every tensor on stdout
MMLogger.get_instance("mmengine", logger_name="mmengine", log_level="WARNING")

__all__ = [
    "MODELS",
    "TASK_UTILS",
    "BitmapMasks",
    "CascadeRoIHead",
    "ConfigDict",
    "DetDataSample",
    "InstanceData",
    "MViT",
    "MaxIoUAssigner",
    "MultiScaleAttention",
    "MultiScaleBlock",
    "SingleRoIExtractor",
    "attention_pool",
    "bbox2roi",
    "multiclass_nms",
    "resize_decomposed_rel_pos",
]
