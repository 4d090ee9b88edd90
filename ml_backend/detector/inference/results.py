"""The results of a prediction, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ml_backend.detector.masks import FloatArray


@dataclass(frozen=True)
class Detection:
    """One detected instance on a tile, with its outline.

    Attributes:
        rings: closed rings float32 [N, 2] (x right, y down) in pixel corners, so the tile is [0, W] x [0, H]; the first
            is the exterior, the rest are holes. Empty only for a box prompt in which nothing is found.
        class_name: one of the checkpoint's classes.
        score: 0..1, from the cascade's averaged logits.
        stage_scores: [3], each stage's own score of that class.
        stage_boxes: float32 [3, 4], each stage's box, xyxy in tile pixels.
        mask_entropy: mean binary entropy of the mask probabilities in the box, 0 (certain) to 1.
        class_entropy: entropy of the class distribution over its maximum, 0 (certain) to 1.
        probability: calibrated probability that it is correct at IoU .5, from the score and the temperature fitted on
            validation; None if the checkpoint has no temperature.
    """

    rings: list[FloatArray]
    class_name: str
    score: float
    stage_scores: tuple[float, ...]
    stage_boxes: FloatArray
    mask_entropy: float
    class_entropy: float
    probability: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "rings": [ring.tolist() for ring in self.rings],
            "class_name": self.class_name,
            "score": self.score,
            "stage_scores": list(self.stage_scores),
            "stage_boxes": self.stage_boxes.tolist(),
            "mask_entropy": self.mask_entropy,
            "class_entropy": self.class_entropy,
            "probability": self.probability,
        }


@dataclass(frozen=True)
class TileResult:
    """The prediction of one tile.

    Attributes:
        detections: by decreasing score.
        embedding: float32 [D], mean of the deepest fused features over pixels where any modality is valid. Of a tile
            cut into windows, the mean weighted by their valid pixels; with test-time augmentation, the mean.
        seconds: its share of the batches' computing time.
    """

    detections: tuple[Detection, ...]
    embedding: FloatArray
    seconds: float
