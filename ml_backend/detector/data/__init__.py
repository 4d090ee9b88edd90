"""Training batches from a dataset directory."""

from ml_backend.detector.data.augmentation import apply_symmetry, hide_modalities, turn
from ml_backend.detector.data.batches import TrainingBatches, draw_order
from ml_backend.detector.data.samples import image_meta, training_sample

__all__ = [
    "TrainingBatches",
    "apply_symmetry",
    "draw_order",
    "hide_modalities",
    "image_meta",
    "training_sample",
    "turn",
]
