"""Number of parameters of a detector, and FLOPs per tile."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ml_backend.detector.inference import Detector

ROIS = 100
COUNTED = (
    "FLOPs of one tile, forward: backbones, fusion, neck, RPN, and the box and mask heads of all three stages on "
    f"{ROIS} RoIs; matrix products and convolutions, a multiplication and an addition being two; not counted are "
    "normalisation, activations, RoIAlign and NMS."
)


def parameter_count(detector: Detector) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in detector.model.parameters())


@torch.inference_mode()
def count_flops(detector: Detector, height: int, width: int) -> int:
    """FLOPs of one tile of height x width network pixels, counted as described in :data:`COUNTED`.

    The number of RoIs is fixed, so that the count does not depend on what the detector finds.
    """
    model: Any = detector.model
    channels = sum(len(m.bands) + 1 for m in detector.modalities)
    inputs = torch.ones(1, channels, height, width, device=detector.device)
    corner = torch.tensor([0.0, 0.0, 0.0, width / 2, height / 2], device=detector.device)
    rois = corner.repeat(ROIS, 1)
    # the counter does not know the CPU's fused attention
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        pyramid = model.neck(model.backbone(inputs))
        model.rpn_head(pyramid)
        for stage in range(model.roi_head.num_stages):
            model.roi_head._bbox_forward(stage, pyramid, rois)
            model.roi_head._mask_forward(stage, pyramid, rois)
    return int(counter.get_total_flops())
