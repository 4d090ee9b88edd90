"""How uncertain a cascade detector is about a tile, from its detections.

Three uncertainties per instance, each 0 (certain) to 1:

- *where is its outline?* ``mask_entropy``: mean binary entropy of the mask probabilities (bits);
- *what is it, if anything?* ``class_entropy``: entropy of the class distribution with background, over its maximum;
- *do the stages agree?* ``stage_disagreement``: the mean of how far the stages' scores spread (largest minus smallest)
  and of how little their boxes overlap (1 - mean IoU of every pair of stages). Stages of a cascade are trained for
  rising IoU thresholds and agree on familiar objects, so they serve as a committee at no extra cost.

An instance's uncertainty is their mean, times its *relevance*: ``min(1, 2 * score)``, so that an instance with a score
of at least one half counts in full and a weaker candidate in proportion to its score. A tile's uncertainty is the
noisy-or of its three most uncertain instances, ``1 - (1 - u1)(1 - u2)(1 - u3)``: another uncertain instance raises it,
a certain one never lowers it, and a hundred weak candidates cannot outweigh one relevant instance.

A tile without an instance above the campaign's threshold is scored the same way by the candidates below it (the
detector returns everything above its own, much lower, threshold). A tile without any candidate has uncertainty 0: the
model is certain that there is nothing. What the model misses on such tiles, the random arm and diversity have to find.

Entropy of masks and classes: Settles, Active Learning Literature Survey (2009), 3.1. Disagreement as a committee: 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ml_backend.acquisition.errors import AcquisitionError

FloatArray = npt.NDArray[np.float64]

MOST_UNCERTAIN = 3
PARTS = ("mask_entropy", "class_entropy", "stage_disagreement")


class ScoredInstance(Protocol):
    """The scores of one detected instance; the detector's ``Detection`` satisfies it."""

    @property
    def score(self) -> float:
        """Final score, 0 to 1."""

    @property
    def stage_scores(self) -> Any:
        """[S] each stage's probability of the final class."""

    @property
    def stage_boxes(self) -> Any:
        """[S, 4] each stage's box x0, y0, x1, y1, in any unit."""

    @property
    def mask_entropy(self) -> float:
        """0 to 1."""

    @property
    def class_entropy(self) -> float:
        """0 to 1."""


@dataclass(frozen=True)
class Uncertainty:
    """How uncertain the model is about a tile: ``value`` from 0 to 1, and its parts.

    ``parts`` holds the relevance-weighted mean of each of :data:`PARTS` over the tile's most uncertain instances, the
    number of all instances (``instances``) and the highest score (``max_score``).
    """

    value: float
    parts: dict[str, float]


def uncertainty(instances: Sequence[ScoredInstance]) -> Uncertainty:
    """Score one tile.

    Args:
        instances: everything the detector returned for the tile, candidates below the display threshold included.

    Raises:
        AcquisitionError: a score or entropy is not a number, or the stages' scores and boxes do not match.
    """
    if not instances:
        return Uncertainty(0.0, {**dict.fromkeys(PARTS, 0.0), "instances": 0.0, "max_score": 0.0})
    scores = _fractions("score", [i.score for i in instances])
    uncertainties = np.stack(
        [
            _fractions("mask_entropy", [i.mask_entropy for i in instances]),
            _fractions("class_entropy", [i.class_entropy for i in instances]),
            np.array([stage_disagreement(i.stage_scores, i.stage_boxes) for i in instances]),
        ],
        axis=1,
    )  # [N, 3]
    relevance = np.minimum(1.0, 2.0 * scores)
    weighted = relevance * uncertainties.mean(axis=1)
    most = np.argsort(-weighted, kind="stable")[:MOST_UNCERTAIN]
    value = 1.0 - float(np.prod(1.0 - np.sort(weighted[most])))
    weights = relevance[most]
    total = float(weights.sum())
    means = uncertainties[most].T @ weights / total if total > 0 else np.zeros(len(PARTS))
    parts = {name: float(mean) for name, mean in zip(PARTS, means, strict=True)}
    return Uncertainty(
        min(1.0, max(0.0, value)), {**parts, "instances": float(len(instances)), "max_score": float(scores.max())}
    )


def stage_disagreement(scores: Any, boxes: Any) -> float:
    """How far the cascade's stages disagree about one instance, 0 to 1.

    Args:
        scores: [S] each stage's probability of the final class.
        boxes: [S, 4] each stage's box, x0, y0, x1, y1.

    Raises:
        AcquisitionError: the shapes do not match or a value is not finite.
    """
    box = np.asarray(boxes, dtype=np.float64)
    score = np.asarray(scores, dtype=np.float64)
    if score.ndim != 1 or box.shape != (len(score), 4) or not (np.isfinite(score).all() and np.isfinite(box).all()):
        raise AcquisitionError(
            f"Stage scores of shape {score.shape} and boxes of shape {box.shape} do not match or are not "
            "finite: give [S] scores and [S, 4] boxes from the same instance."
        )
    if len(score) < 2:
        return 0.0
    first, second = np.triu_indices(len(score), k=1)
    overlap = float(_pairwise_iou(box)[first, second].mean())
    spread = float(np.clip(np.ptp(score), 0.0, 1.0))
    return 0.5 * spread + 0.5 * (1.0 - overlap)


def _pairwise_iou(boxes: FloatArray) -> FloatArray:
    """IoU of every pair [S, S]; two boxes without area have IoU 1 if they are equal, else 0."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = np.clip(high - low, 0.0, None).prod(axis=2)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(axis=1)
    union = areas[:, None] + areas[None, :] - intersection
    same = (boxes[:, None] == boxes[None, :]).all(axis=2).astype(np.float64)
    ratio: FloatArray = np.divide(intersection, union, out=same, where=union > 0)
    return np.clip(ratio, 0.0, 1.0)


def _fractions(name: str, values: Sequence[float]) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise AcquisitionError(f"An instance's {name} is not a number: the model that gave it is broken, retrain it.")
    return np.clip(array, 0.0, 1.0)
