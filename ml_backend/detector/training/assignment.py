"""What a training works on, found out and checked before it starts; and what it says of that in its card."""

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
from ml_backend.detector.training.foresight import require_objects
from ml_backend.detector.training.parts import check_parts
from ml_backend.detector.training.team import Team
from ml_backend.detector.training.warmstart import Init, WarmStart, open_init
from ml_backend.detector.validation import check_apart, check_dataset


@dataclass(frozen=True)
class Assignment:
    """What is to be trained, on what, from what, and where.

    Attributes:
        dataset: what is learnt from; after :meth:`checked`, only the used modalities, with their normalisation.
        checksum: of the dataset.
        config: resolved configuration.
        start: earlier models to begin with.
        device: this process's.
    """

    dataset: DatasetSpec
    checksum: str
    config: DetectorConfig
    start: WarmStart
    device: torch.device

    @classmethod
    def prepare(cls, dataset_dir: Path, config: DetectorConfig, init: Init, device: str, team: Team) -> Assignment:
        """Read what is needed to tell this training from others.

        Raises:
            DetectorError: bad dataset, configuration, checkpoint or device.
        """
        dataset = read_dataset(dataset_dir)
        config = config.resolve(dataset)
        check_parts(config)
        team.slots(config.step_tiles)
        target = team.device(choose_device(device))
        return cls(dataset, dataset.checksum, config, open_init(init, config, dataset), target)

    def checked(self) -> Assignment:
        """Look at all pixels and annotations, and find out the normalisation.

        Raises:
            DatasetError: something is wrong with one of them.
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
        """What tells this training from others, as JSON."""
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

    def begin(self, model: nn.Module) -> dict[str, Any]:
        """Put published or earlier weights into a fresh model, as asked, and say for its card which these were.

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
            init: what :meth:`begin` said.
            metrics: of its weights on the validation split.
            iterations: steps behind its weights.
            training: what the training took.
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
