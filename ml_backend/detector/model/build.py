"""The detector as an mmdet config: Cascade Mask R-CNN (IoU .5/.6/.7) on a multimodal MViTv2 with FPN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.model import assigners, backbone, mvit, roi_head
from ml_backend.detector.model.openmmlab import MODELS, ConfigDict, MViT

STRIDES = (4, 8, 16, 32, 64)
PAD_DIVISOR = 32
# IoU a proposal needs to count as positive, and the standard deviations its box offsets are divided by, per stage
CASCADE = ((0.5, (0.1, 0.1, 0.2, 0.2)), (0.6, (0.05, 0.05, 0.1, 0.1)), (0.7, (0.033, 0.033, 0.067, 0.067)))
STAGE_WEIGHTS = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Size:
    """A model size: the MViT architecture, the widths of neck and heads, and the numbers of proposals and RoIs."""

    arch: dict[str, Any]
    pretrain_size: int
    drop_path: float
    fpn: int
    box_channels: int
    mask_convs: int
    mask_channels: int
    proposals: int
    train_rois: int


def _published(arch: str, drop_path: float) -> Size:
    """A published MViTv2 with mmdet's usual Cascade Mask R-CNN heads; only the backbone grows with the size, as in the
    MViTv2 paper's detectors.
    """
    return Size(
        arch=MViT.arch_zoo[arch],
        pretrain_size=224,
        drop_path=drop_path,
        fpn=256,
        box_channels=1024,
        mask_convs=4,
        mask_channels=256,
        proposals=1000,
        train_rois=512,
    )


SIZES = {
    # a CPU's: RoIAlign's backward is single-threaded there, hence the few RoIs
    "nano": Size(
        arch={"embed_dims": 32, "num_layers": 6, "num_heads": 1, "downscale_indices": [1, 2, 5]},
        pretrain_size=128,
        drop_path=0.0,
        fpn=64,
        box_channels=256,
        mask_convs=2,
        mask_channels=64,
        proposals=100,
        train_rois=64,
    ),
    "tiny": _published("tiny", drop_path=0.1),
    # what the MViTv2 authors' Cascade Mask R-CNN configs use for these two (detectron2, projects/MViTv2)
    "small": _published("small", drop_path=0.2),
    "base": _published("base", drop_path=0.4),
}


def build_model(config: DetectorConfig, modalities: Sequence[ModalitySpec], classes: int) -> nn.Module:
    """Build the detector with fresh weights.

    Args:
        config: resolved configuration.
        modalities: the used ones, in the configuration's order.
        classes: number of classes.
    """
    model: nn.Module = MODELS.build(ConfigDict(model_config(config, modalities, classes)))
    model.init_weights()  # type: ignore[operator]
    return model


def model_config(config: DetectorConfig, modalities: Sequence[ModalitySpec], classes: int) -> dict[str, Any]:
    """The mmdet config of the detector, composed of registered parts."""
    size = SIZES[config.size]
    scales = [size.arch["embed_dims"] * 2**i for i in range(4)]
    return {
        "type": "CascadeRCNN",
        "_scope_": "mmdet",
        "data_preprocessor": {"type": "DetDataPreprocessor", "pad_size_divisor": PAD_DIVISOR, "pad_mask": True},
        "backbone": {
            "type": backbone.MultimodalBackbone.__name__,
            "modalities": [m.name for m in modalities],
            "bands": [len(m.bands) for m in modalities],
            "anchor": config.anchor,
            "fusion": config.fusion,
            "scales": scales,
            "branch": {
                "type": mvit.MaskedMViT.__name__,
                "arch": size.arch,
                "img_size": size.pretrain_size,
                "out_scales": [0, 1, 2, 3],
                "drop_path_rate": size.drop_path,
                "activation_checkpointing": config.activation_checkpointing,
            },
        },
        "neck": {"type": "FPN", "in_channels": scales, "out_channels": size.fpn, "num_outs": len(STRIDES)},
        "rpn_head": _rpn_head(size),
        "roi_head": _roi_head(size, classes),
        "train_cfg": _train_cfg(size),
        "test_cfg": {
            "rpn": {
                "nms_pre": size.proposals,
                "max_per_img": size.proposals,
                "nms": {"type": "nms", "iou_threshold": 0.7},
                "min_bbox_size": 0,
            },
            "rcnn": {
                "score_thr": 0.05,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 100,
                "mask_thr_binary": 0.5,
            },
        },
    }


def _box_coder(stds: Sequence[float]) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": list(stds)}


def _rpn_head(size: Size) -> dict[str, Any]:
    return {
        "type": "RPNHead",
        "in_channels": size.fpn,
        "feat_channels": size.fpn,
        # slumps are small: anchors of 16 to 256 px instead of COCO's 32 to 512
        "anchor_generator": {"type": "AnchorGenerator", "scales": [4], "ratios": [0.5, 1.0, 2.0], "strides": STRIDES},
        "bbox_coder": _box_coder((1.0, 1.0, 1.0, 1.0)),
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
        "loss_bbox": {"type": "SmoothL1Loss", "beta": 1.0 / 9.0},
    }


def _roi_head(size: Size, classes: int) -> dict[str, Any]:
    def extractor(cells: int) -> dict[str, Any]:
        return {
            "type": roi_head.Float32RoIExtractor.__name__,
            "roi_layer": {"type": "RoIAlign", "output_size": cells, "sampling_ratio": 2},
            "out_channels": size.fpn,
            "featmap_strides": list(STRIDES[:4]),
        }

    return {
        "type": roi_head.StagedCascadeRoIHead.__name__,
        "num_stages": len(CASCADE),
        "stage_loss_weights": list(STAGE_WEIGHTS),
        "bbox_roi_extractor": extractor(7),
        "bbox_head": [
            {
                "type": "Shared2FCBBoxHead",
                "in_channels": size.fpn,
                "fc_out_channels": size.box_channels,
                "roi_feat_size": 7,
                "num_classes": classes,
                "bbox_coder": _box_coder(stds),
                "reg_class_agnostic": True,
                "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False},
                "loss_bbox": {"type": "SmoothL1Loss", "beta": 1.0},
            }
            for _, stds in CASCADE
        ],
        "mask_roi_extractor": extractor(14),
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": size.mask_convs,
            "in_channels": size.fpn,
            "conv_out_channels": size.mask_channels,
            "num_classes": classes,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True},
        },
    }


def _train_cfg(size: Size) -> dict[str, Any]:
    def assigner(positive: float, negative: float, low_quality: bool) -> dict[str, Any]:
        return {
            "type": assigners.IgnoringAssigner.__name__,
            "pos_iou_thr": positive,
            "neg_iou_thr": negative,
            "min_pos_iou": negative,
            "match_low_quality": low_quality,
            "ignore_iof_thr": 0.5,
        }

    def sampler(count: int, positives: float, with_truth: bool) -> dict[str, Any]:
        return {
            "type": "RandomSampler",
            "num": count,
            "pos_fraction": positives,
            "add_gt_as_proposals": with_truth,
        }

    return {
        "rpn": {
            "assigner": assigner(0.7, 0.3, True),
            "sampler": sampler(256, 0.5, False),
            "allowed_border": -1,
            "pos_weight": -1,
        },
        "rpn_proposal": {
            "nms_pre": 2 * size.proposals,
            "max_per_img": 2 * size.proposals,
            "nms": {"type": "nms", "iou_threshold": 0.7},
            "min_bbox_size": 0,
        },
        "rcnn": [
            {
                "assigner": assigner(iou, iou, False),
                "sampler": sampler(size.train_rois, 0.25, True),
                "mask_size": 28,
                "pos_weight": -1,
            }
            for iou, _ in CASCADE
        ],
    }
