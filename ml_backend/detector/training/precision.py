"""Mixed precision: bfloat16 where it is fast, float32 where coordinates and losses need it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ml_backend.detector.config import DetectorConfig


def choose_precision(config: DetectorConfig, device: torch.device) -> torch.dtype:
    """What the configuration's ``precision`` means here: ``auto`` is bfloat16 on GPUs that compute in it."""
    if config.precision != "auto":
        return torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Compute matrix products in this dtype; does nothing for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def keep_predictions_in_float32(model: nn.Module) -> None:
    """Make the heads answer in float32, whatever they compute in.

    Boxes are decoded, and anchors made, in the dtype of the heads' answers: bfloat16 would place them on a grid of 2 to
    4 px in a 512 px tile. Losses follow that dtype too.
    """
    heads: Any = model
    for head in (heads.rpn_head, *heads.roi_head.bbox_head, *heads.roi_head.mask_head):
        head.register_forward_hook(lambda module, inputs, output: _float32(output))


def _float32(answer: Any) -> Any:
    """Tensors of a nest of tuples and lists, in float32."""
    if isinstance(answer, torch.Tensor):
        return answer.float()
    if isinstance(answer, list | tuple):
        return type(answer)(_float32(part) for part in answer)
    return answer
