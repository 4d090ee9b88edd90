"""Comparing an exported detector with its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ml_backend.detector.chips import ChipInput
from ml_backend.detector.errors import ExportError
from ml_backend.detector.inference.detector import Detector
from ml_backend.detector.inference.exported import PARTS, flat
from ml_backend.detector.inference.results import Detection
from ml_backend.detector.masks import rings_mask

# Float32 sums in another order differ by about 1e-6 of the largest value; a wrong graph differs by far more.
MAX_DIFFERENCE = 1e-3
# Scores close to a threshold may fall on its other side; nothing else may change.
MIN_AGREEMENT = 0.98
SAME_IOU, SAME_SCORE = 0.95, 0.01


@dataclass(frozen=True)
class Parity:
    """The differences between an exported detector and its checkpoint.

    Attributes:
        differences: per part the largest absolute difference of its outputs, relative to their largest value (or 1).
        agreement: share of detections that both have: mask IoU of at least .95 and scores within .01.
        detections: number compared.
        tiles: number of tiles compared on.
        source: what tiles these are.
    """

    differences: dict[str, float]
    agreement: float
    detections: int
    tiles: int
    source: str

    def require(self) -> None:
        """Check that the differences are within the tolerances.

        Raises:
            ExportError: naming the part and the figure.
        """
        part, worst = max(self.differences.items(), key=lambda entry: entry[1])
        if not worst <= MAX_DIFFERENCE:
            raise ExportError(
                f"Nothing is written: the exported {part} differs from the checkpoint's by {worst:.1e} of its largest "
                f"value, and at most {MAX_DIFFERENCE:g} is accepted: serve the checkpoint itself and report this."
            )
        if self.agreement < MIN_AGREEMENT:
            raise ExportError(
                f"Nothing is written: only {self.agreement:.1%} of {self.detections} detections are those of the "
                f"checkpoint, and {MIN_AGREEMENT:.0%} are needed: serve the checkpoint itself and report this."
            )


def compare(
    detector: Detector,
    exported: Detector,
    examples: Mapping[str, tuple[Tensor, ...]],
    chips: Sequence[ChipInput],
    source: str,
) -> Parity:
    """Compare every part on its example, and the detections on tiles of the exported size."""
    differences = {
        part: _difference(detector.model.get_submodule(part), exported.model.get_submodule(part), examples[part])
        for part in PARTS
    }
    agreed = compared = 0
    for chip in chips:
        (one,), (other,) = (side.predict([chip]) for side in (detector, exported))
        agreed += matching(one.detections, other.detections, exported.window)
        compared += max(len(one.detections), len(other.detections))
    return Parity(differences, agreed / compared if compared else 1.0, compared, len(chips), source)


@torch.inference_mode()
def _difference(one: nn.Module, other: nn.Module, example: tuple[Tensor, ...]) -> float:
    given = example if len(example) > 1 else example[0]
    return max(
        float((a - b).abs().max() / a.abs().max().clamp(min=1))
        for a, b in zip(flat(one(given)), flat(other(given)), strict=True)
    )


def matching(one: Sequence[Detection], other: Sequence[Detection], size: tuple[int, int]) -> int:
    """Number of detections of one list with an equivalent in the other: class, score and mask."""
    masks = [rings_mask(detection.rings, *size) for detection in other]
    free, count = set(range(len(other))), 0
    for detection in one:
        mask = rings_mask(detection.rings, *size)
        for index in sorted(free):
            candidate = other[index]
            if candidate.class_name != detection.class_name or abs(candidate.score - detection.score) > SAME_SCORE:
                continue
            common, either = np.count_nonzero(mask & masks[index]), np.count_nonzero(mask | masks[index])
            if common >= SAME_IOU * either:
                free.remove(index)
                count += 1
                break
    return count
