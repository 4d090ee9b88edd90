"""How good a detector is on a split."""

from ml_backend.detector.evaluation.measure import (
    Evaluation,
    average_precision,
    check_fits,
    evaluate,
    evaluate_detector,
    to_coco,
)

__all__ = ["Evaluation", "average_precision", "check_fits", "evaluate", "evaluate_detector", "to_coco"]
