"""What a detector is told to leave out, checked before the network sees anything."""

from __future__ import annotations

import math

from ml_backend.detector.errors import ConfigError


def check_limits(
    *,
    tolerance: float,
    score_threshold: float = 0.0,
    min_pixels: int = 0,
    max_detections: int = 0,
    max_overlap: float = 1.0,
    batch_size: int = 1,
) -> None:
    """See :meth:`.Detector.predict` for what they mean.

    Raises:
        ConfigError: one makes no sense.
    """
    for name, value, sensible, remedy in (
        ("tolerance", tolerance, 0 <= tolerance < math.inf, "pixels from 0"),
        ("score threshold", score_threshold, 0 <= score_threshold <= 1, "a score from 0 to 1"),
        ("smallest size", min_pixels, min_pixels >= 0, "pixels from 0"),
        ("largest number of detections", max_detections, max_detections >= 0, "0 or more"),
        ("largest overlap", max_overlap, 0 <= max_overlap <= 1, "a share from 0 to 1"),
        ("batch size", batch_size, batch_size >= 1, "1 or more"),
    ):
        if not sensible:
            raise ConfigError(f"A {name} of {value} makes no sense: give {remedy}.")
