"""Metrics of a detector on a split, their confidence intervals, and the comparison of two detectors."""

from ml_backend.detector.evaluation.coco import average_precision, to_coco
from ml_backend.detector.evaluation.findings import Search
from ml_backend.detector.evaluation.measure import check_fits, evaluate, evaluate_detector
from ml_backend.detector.evaluation.names import METRICS, Metric
from ml_backend.detector.evaluation.resampling import Difference
from ml_backend.detector.evaluation.result import Evaluation, compare_evaluations

__all__ = [
    "METRICS",
    "Difference",
    "Evaluation",
    "Metric",
    "Search",
    "average_precision",
    "check_fits",
    "compare_evaluations",
    "evaluate",
    "evaluate_detector",
    "to_coco",
]
