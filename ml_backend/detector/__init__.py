"""ThawLoop's detector: a multimodal Cascade Mask R-CNN on arrays and directories, independent of the platform.

Importing this package does not import torch; the names below load what they need when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_backend.detector.checkpoint import Checkpoint, inspect, open_checkpoint
    from ml_backend.detector.chips import ChipInput
    from ml_backend.detector.config import DetectorConfig
    from ml_backend.detector.dataset import DatasetSpec, ModalitySpec, read_dataset
    from ml_backend.detector.errors import (
        CannotResumeError,
        CheckpointError,
        ConfigError,
        DatasetError,
        DetectorError,
        DeviceError,
        ExportError,
        PromptError,
        TrainingDivergedError,
        TrainingStoppedError,
    )
    from ml_backend.detector.evaluation import Evaluation, Search, compare_evaluations, evaluate
    from ml_backend.detector.inference import Detection, Detector, TileResult, load
    from ml_backend.detector.training import (
        StagesResult,
        TrainResult,
        anchor_scores,
        best_anchor,
        train,
        train_in_stages,
    )

_HOME = {
    "CannotResumeError": "errors",
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "ChipInput": "chips",
    "ConfigError": "errors",
    "DatasetError": "errors",
    "DatasetSpec": "dataset",
    "Detection": "inference",
    "Detector": "inference",
    "DetectorConfig": "config",
    "DetectorError": "errors",
    "DeviceError": "errors",
    "Evaluation": "evaluation",
    "ExportError": "errors",
    "ModalitySpec": "dataset",
    "PromptError": "errors",
    "Search": "evaluation",
    "StagesResult": "training",
    "TileResult": "inference",
    "TrainResult": "training",
    "TrainingDivergedError": "errors",
    "TrainingStoppedError": "errors",
    "anchor_scores": "training",
    "best_anchor": "training",
    "compare_evaluations": "evaluation",
    "evaluate": "evaluation",
    "inspect": "checkpoint",
    "load": "inference",
    "open_checkpoint": "checkpoint",
    "read_dataset": "dataset",
    "train": "training",
    "train_in_stages": "training",
}

__all__ = [
    "CannotResumeError",
    "Checkpoint",
    "CheckpointError",
    "ChipInput",
    "ConfigError",
    "DatasetError",
    "DatasetSpec",
    "Detection",
    "Detector",
    "DetectorConfig",
    "DetectorError",
    "DeviceError",
    "Evaluation",
    "ExportError",
    "ModalitySpec",
    "PromptError",
    "Search",
    "StagesResult",
    "TileResult",
    "TrainResult",
    "TrainingDivergedError",
    "TrainingStoppedError",
    "anchor_scores",
    "best_anchor",
    "compare_evaluations",
    "evaluate",
    "inspect",
    "load",
    "open_checkpoint",
    "read_dataset",
    "train",
    "train_in_stages",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
