"""Labels and explanations of the metrics, for tables and reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is displayed.

    Attributes:
        label: a few words.
        meaning: one sentence.
        group: the table it belongs to.
    """

    label: str
    meaning: str
    group: str


MASKS, BOXES = "Outlines", "Boxes and challenge"
STORED, BEST, CERTAINTY = "At the threshold chosen on validation", "At the best threshold of this split", "Certainty"

METRICS: dict[str, Metric] = {
    "ap": Metric("mask AP", "Mean average precision of outlines over IoU .50 to .95 (COCO).", MASKS),
    "ap50": Metric("mask AP50", "Average precision of outlines at IoU .50.", MASKS),
    "ap75": Metric("mask AP75", "Average precision of outlines at IoU .75.", MASKS),
    "ap30": Metric("mask AP30", "Average precision of outlines at IoU .30.", MASKS),
    "ar": Metric("mask AR", "Mean share of instances found at any score, over IoU .50 to .95.", MASKS),
    "boundary_ap": Metric("boundary AP", "Mask AP on the smaller of mask IoU and boundary IoU.", MASKS),
    "pixel_iou": Metric("pixel IoU", "All kept instances of a class against all true ones, as one map.", MASKS),
    "boundary_iou": Metric("boundary IoU", "Pixel IoU of the bands along the outlines (2 % of the diagonal).", MASKS),
    "box_ap": Metric("box AP", "Mean average precision of the last stage's boxes over IoU .50 to .95.", BOXES),
    "box_ap50": Metric("box AP50", "Average precision of boxes at IoU .50.", BOXES),
    "box_ap75": Metric("box AP75", "Average precision of boxes at IoU .75.", BOXES),
    "box_ap30": Metric("box AP30", "Average precision of boxes at IoU .30.", BOXES),
    "box_ar": Metric("box AR", "Mean share of boxes found at any score, over IoU .50 to .95.", BOXES),
    "rts_ap": Metric("RTS challenge AP", "Mask AP, 10 best per tile, instances under 10 px dropped.", BOXES),
    "rts_ap_small": Metric("RTS challenge AP, small", "The same for instances under 300 px.", BOXES),
    "rts_ap_medium": Metric("RTS challenge AP, medium", "The same for instances of 300 to 2,000 px.", BOXES),
    "rts_ap_large": Metric("RTS challenge AP, large", "The same for instances over 2,000 px.", BOXES),
    "score_threshold": Metric("score threshold", "Detections with at least this score are kept.", STORED),
    "f1_at_threshold": Metric("F1 (IoU .5)", "Harmonic mean of precision and recall at IoU .5.", STORED),
    "precision_at_threshold": Metric("precision (IoU .5)", "Share of the kept detections that is correct.", STORED),
    "recall_at_threshold": Metric("recall (IoU .5)", "Share of the instances that is found.", STORED),
    "f1_30_at_threshold": Metric("F1 (IoU .3)", "F1 of outlines at IoU .30.", STORED),
    "best_score_threshold": Metric("score threshold", "Chosen on this split, so it is optimistic.", BEST),
    "f1": Metric("F1 (IoU .5)", "Best F1 over all thresholds: an upper bound.", BEST),
    "precision": Metric("precision (IoU .5)", "Share of the kept detections that is correct.", BEST),
    "recall": Metric("recall (IoU .5)", "Share of the instances that is found.", BEST),
    "f1_30": Metric("F1 (IoU .3)", "F1 at IoU .3 at the same threshold.", BEST),
    "ece": Metric(
        "calibration error (ECE)", "Mean gap between score and share of correct detections, 15 bins.", CERTAINTY
    ),
    "ece_calibrated": Metric("ECE after scaling", "The same with the stored temperature.", CERTAINTY),
    "temperature": Metric("temperature, stored", "Fitted on validation; above 1, scores are overconfident.", CERTAINTY),
    "best_max_overlap": Metric(
        "shared area, this split", "Detections that share more are duplicates, by the best F1.", CERTAINTY
    ),
    "best_temperature": Metric("temperature, this split", "Fitted on this split.", CERTAINTY),
}

BREAKDOWNS: dict[str, str] = {
    "region": "By region",
    "size": "By size of the instance",
    "class": "By class",
    "modalities": "By available modalities",
}

# 12 experts outlining the same slumps on 3 m imagery
HUMANS: dict[str, str] = {"F1 (IoU .5)": "0.60", "F1 (IoU .3)": "0.76", "pairwise IoU, median": "0.60"}
