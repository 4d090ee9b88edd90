"""The largest overlap of two detections of a class that are both kept, determined on validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from pycocotools import mask as coco_mask

from ml_backend.detector.evaluation.findings import Findings
from ml_backend.detector.evaluation.matching import match
from ml_backend.detector.evaluation.operating import best_threshold, counts_at
from ml_backend.detector.inference.suppression import survivors

# Detections that share less than half of the smaller one are never duplicates.
CANDIDATES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def best_max_overlap(findings: Findings) -> float:
    """The share of the smaller of two detections that both may cover, by the best F1 (IoU .5); of equals the smallest.

    Args:
        findings: made without suppression (``Search(max_overlap=1.0)``).
    """
    reached = {share: best_f1(suppressed(findings, share)) for share in CANDIDATES}
    return max(CANDIDATES, key=lambda share: (reached[share], -share))


def best_f1(findings: Findings) -> float:
    """The best F1 (IoU .5) over score thresholds; 0 without correct detections."""
    matches, _ = match(findings.truth, findings.predictions, findings.max_detections)
    return float(np.nan_to_num(counts_at(matches, best_threshold(matches)).total().f1))


def pairs_sharing(findings: Findings, least: float) -> list[tuple[int, int, float]]:
    """The pairs (indices into ``predictions``) of one tile and class that share more than ``least`` of the smaller."""
    return [pair for pair in _pairs(findings) if pair[2] > least]


def suppressed(findings: Findings, max_overlap: float) -> Findings:
    """The findings without detections that share more with a better one: see :mod:`..inference.suppression`."""
    scores = [found["score"] for found in findings.predictions]
    kept = set(survivors(scores, _pairs(findings), max_overlap))
    ends = np.cumsum([len(found) for found in findings.detections]).tolist()
    return replace(
        findings,
        predictions=[found for index, found in enumerate(findings.predictions) if index in kept],
        detections=tuple(
            tuple(one for index, one in enumerate(found, start=end - len(found)) if index in kept)
            for end, found in zip(ends, findings.detections, strict=True)
        ),
    )


def _pairs(findings: Findings) -> Iterator[tuple[int, int, float]]:
    groups: dict[tuple[int, int], list[int]] = {}
    for index, found in enumerate(findings.predictions):
        groups.setdefault((found["image_id"], found["category_id"]), []).append(index)
    for indices in groups.values():
        masks = [findings.predictions[index]["segmentation"] for index in indices]
        of_own = np.asarray(
            coco_mask.iou(masks, masks, [1] * len(masks))
        )  # with iscrowd: intersection over the area of the first
        shares = np.maximum(of_own, of_own.T)
        for one, other in np.argwhere(np.triu(shares > 0, k=1)).tolist():
            yield indices[one], indices[other], float(shares[one, other])
