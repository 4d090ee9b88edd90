"""Prediction: from tiles to instances with outlines and uncertainty."""

from ml_backend.detector.inference.detector import Detector
from ml_backend.detector.inference.loading import load, load_weights
from ml_backend.detector.inference.results import Detection, TileResult

__all__ = ["Detection", "Detector", "TileResult", "load", "load_weights"]
