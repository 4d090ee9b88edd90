"""Boxes that a person draws, checked before the network sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ml_backend.detector.errors import PromptError
from ml_backend.detector.masks import FloatArray

Box = Sequence[float]


def check_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> FloatArray:
    """Clip boxes (x1, y1, x2, y2 in tile pixels) to a tile of ``size`` (height, width).

    Returns:
        float32 [n, 4].

    Raises:
        PromptError: a box is not four finite numbers, is empty, or lies outside the tile.
    """
    checked: FloatArray = np.zeros((len(boxes), 4), dtype=np.float32)
    height, width = size
    for row, box in zip(checked, boxes, strict=True):
        said = f"The box {','.join(f'{value:g}' for value in box)}"
        if len(box) != 4 or not np.isfinite(box).all():
            raise PromptError(f"{said} is not four numbers: give x1,y1,x2,y2 in tile pixels.")
        x1, y1, x2, y2 = box
        if x1 >= x2 or y1 >= y2:
            raise PromptError(f"{said} is empty: give x1,y1,x2,y2 with x1 < x2 and y1 < y2.")
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise PromptError(f"{said} lies outside its tile of {width} x {height} pixels: give tile pixels.")
        row[:] = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    return checked
