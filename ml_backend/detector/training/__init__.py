"""Training, in one stage or several, from scratch or from earlier models."""

from ml_backend.detector.training.loop import TrainResult, learning_rate, train

__all__ = ["TrainResult", "learning_rate", "train"]
