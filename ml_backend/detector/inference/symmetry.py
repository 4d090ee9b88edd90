"""The symmetries of the square, for test-time augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ml_backend.detector.errors import ConfigError

Size = tuple[int, int]


@dataclass(frozen=True)
class Symmetry:
    """Swap the axes, then mirror: the eight combinations are the group D4."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def size(self, size: Size) -> Size:
        """The (height, width) of the transformed image."""
        return (size[1], size[0]) if self.transpose else size

    def image(self, image: Tensor) -> Tensor:
        """Apply to the last two axes [..., H, W]."""
        if self.transpose:
            image = image.transpose(-1, -2)
        return self._mirrored(image).contiguous()

    def image_back(self, image: Tensor) -> Tensor:
        """Undo :meth:`image`."""
        image = self._mirrored(image)
        return image.transpose(-1, -2) if self.transpose else image

    def boxes(self, boxes: Tensor, size: Size) -> Tensor:
        """Boxes [..., 4] (xyxy) on an image of ``size`` as boxes on its :meth:`image`."""
        if self.transpose:
            boxes = boxes[..., [1, 0, 3, 2]]
        return self._mirrored_boxes(boxes, self.size(size))

    def boxes_back(self, boxes: Tensor, size: Size) -> Tensor:
        """Undo :meth:`boxes`; ``size`` is again that of the original image."""
        boxes = self._mirrored_boxes(boxes, self.size(size))
        return boxes[..., [1, 0, 3, 2]] if self.transpose else boxes

    def _mirrored(self, image: Tensor) -> Tensor:
        axes = [axis for axis, flipped in ((-1, self.flip_x), (-2, self.flip_y)) if flipped]
        return image.flip(axes) if axes else image

    def _mirrored_boxes(self, boxes: Tensor, size: Size) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(-1)
        if self.flip_x:
            x1, x2 = size[1] - x2, size[1] - x1
        if self.flip_y:
            y1, y2 = size[0] - y2, size[0] - y1
        return torch.stack((x1, y1, x2, y2), dim=-1)


IDENTITY = Symmetry()
TTA = {
    "none": (IDENTITY,),
    "flips": tuple(Symmetry(False, x, y) for x, y in product((False, True), repeat=2)),
    "d4": tuple(Symmetry(t, x, y) for t, x, y in product((False, True), repeat=3)),
}


def symmetries(name: str) -> tuple[Symmetry, ...]:
    """The symmetries of a test-time augmentation, the identity first.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in TTA:
        raise ConfigError(f"The test-time augmentation '{name}' is unknown: use {', '.join(TTA)}.")
    return TTA[name]
