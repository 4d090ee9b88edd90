"""The only module that imports mmcv, mmdet, mmengine and mmpretrain: after installing the ops that they need."""

from __future__ import annotations

import warnings

from ml_backend.detector.model import ops

ops.install()

with warnings.catch_warnings():
    # mmpretrain warns about optional multimodal extras at import, which the detector does not need
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

# otherwise every build prints the initialisation of every tensor to stdout
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
