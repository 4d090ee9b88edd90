"""Mixed precision: bfloat16 where it is fast, float32 where coordinates and losses need it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ml_backend.detector.config import DetectorConfig


def choose_precision(config: DetectorConfig, device: torch.device) -> torch.dtype:
    """The dtype of the configuration's ``precision``; ``auto`` is bfloat16 on GPUs that support it."""
    if config.precision != "auto":
        return torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Compute matrix products in this dtype; no effect for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def keep_predictions_in_float32(model: nn.Module) -> None:
    """Convert the outputs of the heads to float32.

    Boxes are decoded, and anchors generated, in the dtype of the heads' outputs: bfloat16 would round them to a grid of
    2 to 4 px in a 512 px tile. Losses are computed in that dtype, too.
    """
    heads: Any = model
    for head in (heads.rpn_head, *heads.roi_head.bbox_head, *heads.roi_head.mask_head):
        head.register_forward_hook(lambda module, inputs, output: _float32(output))


def _float32(output: Any) -> Any:
    """Convert the tensors in nested tuples and lists to float32."""
    if isinstance(output, torch.Tensor):
        return output.float()
    if isinstance(output, list | tuple):
        return type(output)(_float32(part) for part in output)
    return output
