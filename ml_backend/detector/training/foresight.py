"""What a dataset must hold for a training to come to anything."""

from __future__ import annotations

from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.data.samples import holds_objects
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.errors import DatasetError


def require_objects(dataset: DatasetSpec, config: DetectorConfig) -> None:
    """See that there is something to learn, and something to choose weights by where that is asked for.

    Args:
        dataset: with the used modalities alone.
        config: of the training.

    Raises:
        DatasetError: there is not.
    """
    pixels = config.min_instance_pixels / max(1.0, config.scale_jitter[1]) ** 2
    if not holds_objects(dataset, "train", pixels, config.reduction(dataset.longest_side)):
        raise DatasetError(
            f"{dataset.annotation_file('train')}: no object covers {config.min_instance_pixels} pixels "
            f"(min_instance_pixels) of what the network sees{_where(dataset)}, so there is nothing to learn: give a "
            "larger image_size or a smaller min_instance_pixels, or label larger objects."
        )
    if config.eval_interval and not holds_objects(dataset, "val"):
        raise DatasetError(
            f"{dataset.annotation_file('val')} holds no objects{_where(dataset)}, so evaluations cannot tell which "
            "weights are better: label at least one there, or leave out eval_interval and patience."
        )


def _where(dataset: DatasetSpec) -> str:
    return f" on tiles with {' or '.join(modality.name for modality in dataset.modalities)}"
