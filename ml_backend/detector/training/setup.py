"""The inputs of a training, read and checked before it starts, and the card of its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contracts.network import NETWORK_VERSION
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import DatasetSpec, read_dataset
from ml_backend.detector.devices import choose_device
from ml_backend.detector.model.pretrained import load_pretrained
from ml_backend.detector.training.parts import check_parts
from ml_backend.detector.training.team import Team
from ml_backend.detector.training.warmstart import Init, WarmStart, open_init
from ml_backend.detector.validation import check_apart, check_dataset, require_objects


@dataclass(frozen=True)
class TrainingSetup:
    """Dataset, configuration, initial weights and device of a training.

    Attributes:
        dataset: to train on; after :meth:`checked`, with only the used modalities and their normalisation.
        checksum: of the dataset.
        config: resolved configuration.
        start: earlier models to start from.
        device: of this process.
    """

    dataset: DatasetSpec
    checksum: str
    config: DetectorConfig
    start: WarmStart
    device: torch.device

    @classmethod
    def prepare(cls, dataset_dir: Path, config: DetectorConfig, init: Init, device: str, team: Team) -> TrainingSetup:
        """Read everything that identifies the training.

        Raises:
            DetectorError: bad dataset, configuration, checkpoint or device.
        """
        dataset = read_dataset(dataset_dir)
        config = config.resolve(dataset)
        check_parts(config)
        team.slots(config.step_tiles)
        target = team.device(choose_device(device))
        return cls(dataset, dataset.checksum, config, open_init(init, config, dataset), target)

    def checked(self) -> TrainingSetup:
        """Check all chips and annotations, and compute the normalisation.

        Raises:
            DatasetError: one of them is invalid.
        """
        check_apart(self.dataset, self.dataset.splits)
        splits = ["train", *(["val"] if self.dataset.has_split("val") or self.config.eval_interval else [])]
        specs = check_dataset(self.dataset, self.config.modalities, splits)
        modalities = tuple(self.start.normalise(spec) for spec in specs)
        found = replace(self, dataset=self.dataset.with_modalities(modalities))
        require_objects(found.dataset, self.config)
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """What distinguishes this training from others, as JSON."""
        return {
            "architecture": NETWORK_VERSION,
            "config": self.config.to_json(),
            "dataset": self.checksum,
            "init": self.start.lineage(),
        }

    @property
    def reduction(self) -> float:
        """Ground pixels per network pixel."""
        return self.config.reduction(self.dataset.longest_side)

    def load_initial_weights(self, model: nn.Module) -> dict[str, Any]:
        """Load published or earlier weights into a new model; returns their identification for the card.

        Raises:
            CheckpointError: they cannot be read or do not fit.
        """
        published = {} if self.start.whole else load_pretrained(model, self.config)
        self.start.apply(model, self.config, self.dataset.modalities)
        return {**published, **self.start.lineage()}

    def card(
        self, init: dict[str, Any], metrics: dict[str, Any], iterations: int, training: dict[str, Any]
    ) -> dict[str, Any]:
        """The card of a checkpoint.

        Args:
            init: returned by :meth:`load_initial_weights`.
            metrics: of its weights on the validation split.
            iterations: number of steps of its weights.
            training: time, memory and device of the training.
        """
        return {
            "architecture": NETWORK_VERSION,
            "config": self.config.to_json(),
            "classes": list(self.dataset.classes),
            "modalities": [m.to_json() for m in self.dataset.modalities],
            "anchor": self.config.anchor,
            "tile_size": self.dataset.longest_side,
            "ground_pixels_per_network_pixel": self.reduction,
            "metrics": metrics,
            "iterations": iterations,
            "dataset": {"name": self.dataset.name, "version": self.dataset.version, "checksum": self.checksum},
            "init": init,
            "training": training,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
