"""Validation of the arguments of a prediction, before the network runs: thresholds, limits and box prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ml_backend.detector.errors import ConfigError, PromptError
from ml_backend.detector.masks import FloatArray

Box = Sequence[float]


def check_limits(
    *,
    tolerance: float,
    score_threshold: float = 0.0,
    min_pixels: int = 0,
    max_detections: int = 0,
    max_overlap: float = 1.0,
    batch_size: int = 1,
) -> None:
    """Check limits; see :meth:`.Detector.predict` for their meaning.

    Raises:
        ConfigError: one is out of its range.
    """
    for name, value, sensible, remedy in (
        ("tolerance", tolerance, 0 <= tolerance < math.inf, "0 pixels or more"),
        ("score threshold", score_threshold, 0 <= score_threshold <= 1, "a score from 0 to 1"),
        ("smallest size", min_pixels, min_pixels >= 0, "0 pixels or more"),
        ("largest number of detections", max_detections, max_detections >= 0, "0 or more"),
        ("largest overlap", max_overlap, 0 <= max_overlap <= 1, "a share from 0 to 1"),
        ("batch size", batch_size, batch_size >= 1, "1 or more"),
    ):
        if not sensible:
            raise ConfigError(f"A {name} of {value} makes no sense: give {remedy}.")


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
        named = f"The box {','.join(f'{value:g}' for value in box)}"
        if len(box) != 4 or not np.isfinite(box).all():
            raise PromptError(f"{named} is not four numbers: give x1,y1,x2,y2 in tile pixels.")
        x1, y1, x2, y2 = box
        if x1 >= x2 or y1 >= y2:
            raise PromptError(f"{named} is empty: give x1,y1,x2,y2 with x1 < x2 and y1 < y2.")
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise PromptError(f"{named} lies outside its tile of {width} x {height} pixels: give tile pixels.")
        row[:] = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    return checked
