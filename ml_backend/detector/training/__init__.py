"""Training, in one stage or several, from scratch or from earlier models."""

from ml_backend.detector.training.loop import train
from ml_backend.detector.training.optimizer import learning_rate
from ml_backend.detector.training.result import TrainResult

__all__ = ["TrainResult", "learning_rate", "train"]
