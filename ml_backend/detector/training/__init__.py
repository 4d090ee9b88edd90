"""Training in one or several stages, from scratch or from earlier models."""

from ml_backend.detector.training.anchor import anchor_scores, best_anchor
from ml_backend.detector.training.optimizer import learning_rate
from ml_backend.detector.training.runfolder import TrainResult
from ml_backend.detector.training.single import train
from ml_backend.detector.training.stages import StagesResult, plan_trainings, train_in_stages

__all__ = [
    "StagesResult",
    "TrainResult",
    "anchor_scores",
    "best_anchor",
    "learning_rate",
    "plan_trainings",
    "train",
    "train_in_stages",
]
