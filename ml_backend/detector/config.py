"""What a training is asked to do, as plain data that travels in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.errors import ConfigError

SIZES = ("nano", "tiny", "small", "base")
FUSIONS = ("residual_cross_attention", "cross_attention", "conv", "channel_attention", "cbam", "stack")
PARTS = ("neck", "rpn", "roi_head")


@dataclass(frozen=True)
class DetectorConfig:
    """A detector and how it is trained.

    Attributes:
        size: ``nano`` (CPU demo and tests), ``tiny`` (MViTv2-T, the paper's), ``small`` or ``base``.
        fusion: how modalities are joined; a name registered in :mod:`ml_backend.detector.model.fusion`.
        modalities: names of the modalities used; empty means all of the dataset, in its order.
        anchor: the modality that the others are added to; empty means the dataset's, or the first used.
        iterations: optimizer steps.
        batch_size: tiles per step.
        learning_rate: peak of the schedule (AdamW; linear warmup, cosine decay). The paper's is 1.6e-4 for long
            schedules from pretrained weights; the default suits short ones from scratch.
        weight_decay: AdamW's, not applied to norms, biases and relative positions.
        warmup: steps of linear warmup.
        grad_clip: largest gradient norm.
        seed: of weights, data order, augmentation and RoI sampling.
        image_size: network input in pixels (tiles are resampled to it); None keeps the tiles' own size.
        freeze: parts whose weights stay: modality names (their backbone), ``neck``, ``rpn``, ``roi_head``.
        modality_dropout: chance that a modality other than the anchor is hidden from a training tile.
        radiometric_jitter: standard deviation of random gain and offset, in units of the modality's own std.
        empty_share: share of training tiles drawn from those without objects, where there are any.
        eval_interval: steps between evaluations on ``val``; 0 evaluates once at the end. With more than one, the best
            weights are published.
        save_interval: steps between private resume states.
        pretrained: MViTv2 weights that every backbone starts from: a file or ``hf://owner/repository/file`` (see
            :mod:`ml_backend.detector.model.pretrained`); empty starts from random ones.
        activation_checkpointing: compute the backbones' activations again in the backward pass instead of keeping
            them: less memory, about a third more time.
    """

    size: str = "nano"
    fusion: str = "residual_cross_attention"
    modalities: tuple[str, ...] = ()
    anchor: str = ""
    iterations: int = 150
    batch_size: int = 4
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 20
    grad_clip: float = 5.0
    seed: int = 0
    image_size: int | None = None
    freeze: tuple[str, ...] = ()
    modality_dropout: float = 0.1
    radiometric_jitter: float = 0.1
    empty_share: float = 0.2
    eval_interval: int = 0
    save_interval: int = 25
    pretrained: str = ""
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        _require(self.size in SIZES, "size", self.size, f"choose one of {', '.join(SIZES)}")
        _require(self.fusion in FUSIONS, "fusion", self.fusion, f"choose one of {', '.join(FUSIONS)}")
        _require(self.iterations >= 1, "iterations", self.iterations, "give at least 1")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "give at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "give a positive number")
        _require(self.image_size is None or self.image_size >= 32, "image_size", self.image_size, "give 32 or more")
        _require(0 <= self.modality_dropout < 1, "modality_dropout", self.modality_dropout, "give a share below 1")
        _require(0 <= self.empty_share < 1, "empty_share", self.empty_share, "give a share below 1")
        _require(self.save_interval >= 1, "save_interval", self.save_interval, "give at least 1")
        _require(len(set(self.modalities)) == len(self.modalities), "modalities", self.modalities, "name each once")

    def resolve(self, dataset: DatasetSpec) -> DetectorConfig:
        """Fill in the dataset's modalities and anchor where none were named.

        Raises:
            ConfigError: a named modality or frozen part does not exist.
        """
        known = tuple(m.name for m in dataset.modalities)
        modalities = self.modalities or known
        for name in modalities:
            if name not in known:
                raise ConfigError(
                    f"The configuration asks for modality '{name}', but {dataset.path / 'dataset.json'} declares "
                    f"{', '.join(known)}: name one of those or add it to the dataset."
                )
        anchor = self.anchor or (dataset.anchor if dataset.anchor in modalities else modalities[0])
        _require(anchor in modalities, "anchor", anchor, f"name one of the used modalities {', '.join(modalities)}")
        for part in self.freeze:
            choices = (*modalities, *PARTS)
            _require(part in choices, "freeze", part, f"choose among {', '.join(choices)}")
        return replace(self, modalities=modalities, anchor=anchor)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DetectorConfig:
        """Build from JSON.

        Raises:
            ConfigError: a key is unknown or a value makes no sense.
        """
        known = {field.name for field in fields(cls)}
        for key in data:
            if key not in known:
                raise ConfigError(f"The configuration key '{key}' is unknown: use {', '.join(sorted(known))}.")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**values)


def _require(condition: bool, key: str, value: object, remedy: str) -> None:
    if not condition:
        raise ConfigError(f"The configuration value {key} = {value!r} makes no sense: {remedy}.")
