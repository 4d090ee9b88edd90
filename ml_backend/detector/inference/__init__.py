"""Tiles in, instances with outlines and uncertainty out."""

from ml_backend.detector.inference.detector import Detection, Detector, TileResult, load, load_weights

__all__ = ["Detection", "Detector", "TileResult", "load", "load_weights"]
