"""The network: backbones, fusion and cascade heads, composed as an mmdet config."""

from ml_backend.detector.model.build import build_model, model_config

__all__ = ["build_model", "model_config"]
