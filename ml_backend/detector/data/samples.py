"""The mmdet data sample of a tile: its instances, its ignored regions, and its shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ml_backend.detector.dataset import Tile
from ml_backend.detector.masks import BoolArray
from ml_backend.detector.model.openmmlab import BitmapMasks, DetDataSample, InstanceData

MIN_INSTANCE_PIXELS = 4


def training_sample(tile: Tile, masks: BoolArray, min_pixels: int = MIN_INSTANCE_PIXELS) -> Any:
    """mmdet's DetDataSample of a tile and the masks [n, H, W] of its instances, in their order.

    Instances marked as ignored, or of fewer than `min_pixels` pixels, are neither objects nor background.
    """
    height, width = masks.shape[1:]
    pixels = masks.sum(axis=(1, 2))
    positive = np.array([not i.ignored for i in tile.instances], dtype=bool) & (pixels >= min_pixels)
    ignored = ~positive & (pixels > 0)
    labels = np.array([i.class_index for i in tile.instances], dtype=np.int64)
    sample = DetDataSample(metainfo=image_meta((height, width), (height, width)))
    sample.gt_instances = InstanceData(
        bboxes=boxes_of(masks[positive]),
        labels=torch.from_numpy(labels[positive]),
        masks=BitmapMasks(masks[positive].astype(np.uint8), height, width),
    )
    sample.ignored_instances = InstanceData(bboxes=boxes_of(masks[ignored]), labels=torch.from_numpy(labels[ignored]))
    return sample


def image_meta(own: tuple[int, int], network: tuple[int, int]) -> dict[str, Any]:
    """mmdet's metainfo, from the tile's own size (H, W) and its size (h, w) in network pixels."""
    return {
        "ori_shape": own,
        "img_shape": network,
        "scale_factor": (network[1] / own[1], network[0] / own[0]),
    }


def boxes_of(masks: BoolArray) -> torch.Tensor:
    """Tight boxes [n, 4] (xyxy, pixel corners) around masks [n, H, W], none of them empty."""
    boxes = np.zeros((len(masks), 4), dtype=np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return torch.from_numpy(boxes)
