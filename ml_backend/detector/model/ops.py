"""The interface of mmcv's compiled ops, implemented by torchvision's kernels.

mmcv looks for a compiled extension ``mmcv._ext``. Its wheels come without one, and compiling it takes half an hour on
a laptop. Cascade Mask R-CNN needs three functions of it, which torchvision ships for CPU and CUDA: greedy NMS and
RoIAlign, forward and backward. All others raise NotImplementedError.

:func:`install` must run before ``mmcv.ops`` is imported; :mod:`ml_backend.detector.model.openmmlab` takes care of that.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        bboxes: [N, 4] xyxy.
        scores: [N].
        iou_threshold: boxes that overlap a better one by more than this are dropped.
        offset: 1 counts pixels inclusively (width = x2 - x1 + 1), as old detectors did.

    Returns:
        int64 indices of the kept boxes, best first.
    """
    boxes = bboxes.float()
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    kept: Tensor = torchvision.ops.nms(boxes, scores.float(), iou_threshold)
    return kept


def _require_average_pooling(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError("RoIAlign with max pooling has no torchvision kernel; use pool_mode='avg'")


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    """bfloat16 has no kernel, and with 8 significant bits it could not represent every pixel coordinate above 256."""
    return torch.promote_types(tensor.dtype, torch.float32)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write RoIAlign of ``input`` [N, C, H, W] at ``rois`` [R, 5] (image index, xyxy) into ``output`` [R, C, h, w].

    Half precision is computed in float32: the kernels need images and boxes of the same type, and bfloat16 would round
    the corners of boxes to whole pixels or worse.
    """
    _require_average_pooling(pool_mode)
    dtype = _at_least_float32(input)
    output.copy_(
        torch.ops.torchvision.roi_align(
            input.to(dtype), rois.to(dtype), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient with respect to RoIAlign's input into ``grad_input`` [N, C, H, W]."""
    _require_average_pooling(pool_mode)
    dtype = _at_least_float32(grad_output)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output.to(dtype),
            rois.to(dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


class _Extension(types.ModuleType):
    """A stand-in for ``mmcv._ext``: mmcv asks for every op by name at import, but may call only the three above."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise NotImplementedError(f"mmcv op '{name}' is not available: ThawLoop maps only nms and roi_align")

        return missing


def install() -> None:
    """Put the interface where mmcv looks for its compiled extension; does nothing if one is already there."""
    if "mmcv._ext" in sys.modules:
        return
    extension = _Extension("mmcv._ext", __doc__)
    # mmengine looks for the extension with find_spec, which fails on a module without a spec
    extension.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
    vars(extension).update(nms=nms, roi_align_forward=roi_align_forward, roi_align_backward=roi_align_backward)
    sys.modules["mmcv._ext"] = extension
