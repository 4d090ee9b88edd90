"""The configuration of a training, as plain data that is stored as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.errors import ConfigError

ARCHITECTURE = 3  # raised when a configuration builds another network than before: earlier work is not continued then
SIZES = ("nano", "tiny", "small", "base")
FUSIONS = ("residual_cross_attention", "cross_attention", "conv", "channel_attention", "cbam", "stack")
PARTS = ("neck", "rpn", "roi_head")
STACKED = "stacked"  # the one backbone of fusions that join the data
PRECISIONS = ("auto", "float32", "bfloat16")
LARGEST_NUMBER = 1e300
LARGEST_SEED = 2**53 - 1  # every JSON reader keeps whole numbers up to here
WANTED: Mapping[Any, str] = {
    str: "give text",
    bool: "give true or false",
    int: "give a whole number",
    float: "give a finite number",
    int | None: "give a whole number or null",
    tuple[str, ...]: "give a list of names",
    tuple[float, float]: "give a list of two numbers",
    tuple[tuple[str, float], ...]: 'give a factor per part, as {"rgb": 0.1}',
}


@dataclass(frozen=True)
class DetectorConfig:
    """A detector and how it is trained.

    Attributes:
        size: ``nano`` (CPU demo and tests), ``tiny`` (MViTv2-T, the paper's), ``small`` or ``base``.
        fusion: how modalities are joined; a name registered in :mod:`ml_backend.detector.model.fusion`.
        modalities: names of the modalities used; empty means all of the dataset, in its order.
        anchor: the modality that the others are added to; empty means the dataset's, or the first used.
        iterations: optimizer steps.
        batch_size: tiles that go through the network together.
        accumulate: forward passes per optimizer step; a step learns from ``batch_size * accumulate`` tiles.
        learning_rate: peak of the schedule (AdamW; linear warmup, cosine decay). The paper's is 1.6e-4 for long
            schedules from pretrained weights; the default suits short ones from scratch.
        weight_decay: AdamW's, not applied to norms, biases and relative positions.
        warmup: steps of linear warmup.
        grad_clip: largest gradient norm.
        seed: of weights, data order, augmentation and RoI sampling.
        image_size: network pixels of the longest side of the largest training tile. All tiles, windows and rasters are
            resampled by the same factor (:meth:`reduction`), which keeps their aspect ratio and relative scale; None
            does not resample.
        freeze: parts whose weights are not trained: modality names (their backbone), ``neck``, ``rpn``, ``roi_head``.
        slow: parts with a lower learning rate, each with its factor; in JSON ``{"rgb": 0.1}``.
        fusion_rate: factor of the fusion's learning rate where it is newly initialised among pretrained parts,
            since it has only the fine-tuning to learn in. From scratch, or when a whole model is continued, all parts
            have the same learning rate.
        precision: ``bfloat16`` is mixed precision, ``float32`` full precision; ``auto`` chooses the first on GPUs that
            support it and the second elsewhere.
        ema: decay of the weights' moving average, which is then evaluated and published; 0 turns it off.
        modality_dropout: probability that a modality other than the anchor is hidden in a training tile.
        radiometric_jitter: standard deviation of random gain and offset, in units of the modality's own std.
        jitter_exempt: modalities without this jitter, because their absolute values carry meaning.
        scale_jitter: smallest and largest factor by which training tiles are resized before they are cropped or padded
            to their original size (Ghiasi et al. 2021 use 0.1 to 2 for long schedules); 1, 1 turns it off.
        copy_paste: probability that objects of another training tile are pasted onto a training tile.
        min_instance_pixels: smaller objects, in network pixels, are ignored: they are neither positive nor negative.
        empty_share: share of training tiles drawn from those without objects, where there are any.
        eval_interval: steps between evaluations on ``val``; 0 evaluates once at the end. With several evaluations,
            the best weights are published.
        patience: end the training after so many evaluations without a better mask AP50; 0 turns this off.
        save_interval: steps between saved resume states.
        pretrained: MViTv2 weights that every backbone starts from: a file or ``hf://owner/repository/file`` (see
            :mod:`ml_backend.detector.model.pretrained`); empty means random initialisation.
        activation_checkpointing: recompute the backbones' activations in the backward pass instead of storing them:
            less memory, about a third more time.
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
    jitter_exempt: tuple[str, ...] = ()
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    copy_paste: float = 0.0
    min_instance_pixels: int = 4
    empty_share: float = 0.2
    eval_interval: int = 0
    save_interval: int = 25
    pretrained: str = ""
    accumulate: int = 1
    slow: tuple[tuple[str, float], ...] = ()
    fusion_rate: float = 4.0
    precision: str = "auto"
    activation_checkpointing: bool = False
    ema: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        for key, kind in _kinds().items():
            value = getattr(self, key)
            _require(_fits(value, kind), key, value, WANTED[kind])
        _require(self.size in SIZES, "size", self.size, f"choose one of {', '.join(SIZES)}")
        _require(self.fusion in FUSIONS, "fusion", self.fusion, f"choose one of {', '.join(FUSIONS)}")
        _require(self.iterations >= 1, "iterations", self.iterations, "give at least 1")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "give at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "give a positive number")
        _require(self.fusion_rate > 0, "fusion_rate", self.fusion_rate, "give a positive factor")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "give 0 or more")
        _require(self.warmup >= 0, "warmup", self.warmup, "give 0 or more")
        _require(self.grad_clip > 0, "grad_clip", self.grad_clip, "give a positive number")
        _require(0 <= self.seed <= LARGEST_SEED, "seed", self.seed, f"give a number from 0 to {LARGEST_SEED}")
        _require(self.image_size is None or self.image_size >= 32, "image_size", self.image_size, "give 32 or more")
        _require(0 <= self.modality_dropout < 1, "modality_dropout", self.modality_dropout, "give a share below 1")
        _require(self.radiometric_jitter >= 0, "radiometric_jitter", self.radiometric_jitter, "give 0 or more")
        _require(0 <= self.empty_share < 1, "empty_share", self.empty_share, "give a share below 1")
        scales = self.scale_jitter
        _require(
            0.1 <= scales[0] <= scales[1] <= 4,
            "scale_jitter",
            scales,
            "give a smallest and a largest factor from 0.1 to 4",
        )
        _require(0 <= self.copy_paste <= 1, "copy_paste", self.copy_paste, "give a chance from 0 to 1")
        _require(self.min_instance_pixels >= 1, "min_instance_pixels", self.min_instance_pixels, "give 1 or more")
        _require(self.eval_interval >= 0, "eval_interval", self.eval_interval, "give 0 or more")
        _require(self.save_interval >= 1, "save_interval", self.save_interval, "give at least 1")
        _require(self.accumulate >= 1, "accumulate", self.accumulate, "give at least 1")
        _require(self.precision in PRECISIONS, "precision", self.precision, f"choose one of {', '.join(PRECISIONS)}")
        _require(0 <= self.ema < 1, "ema", self.ema, "give a decay below 1, such as 0.999, or 0 for none")
        _require(self.patience >= 0, "patience", self.patience, "give 0 or more")
        _require(not self.patience or self.eval_interval > 0, "patience", self.patience, "give eval_interval too")
        for part, factor in self.slow:
            _require(factor > 0, "slow", f"{part}={factor}", "give a positive factor, or freeze the part")
            _require(part not in self.freeze, "slow", f"{part}={factor}", "freeze the part or slow it, not both")
        _require(len(dict(self.slow)) == len(self.slow), "slow", self.slow, "name each part once")
        _require(len(set(self.modalities)) == len(self.modalities), "modalities", self.modalities, "name each once")

    @property
    def step_tiles(self) -> int:
        """Number of tiles per optimizer step."""
        return self.batch_size * self.accumulate

    def reduction(self, longest_side: int) -> float:
        """Ground pixels per network pixel, along each side; 2 halves tiles, windows and rasters alike.

        Args:
            longest_side: of the largest training tile, in its own (ground) pixels.
        """
        return longest_side / self.image_size if self.image_size else 1.0

    def resolve(self, dataset: DatasetSpec) -> DetectorConfig:
        """Fill in the dataset's modalities and anchor where none are given.

        Raises:
            ConfigError: a named modality or frozen part does not exist, or a modality has the name of another part.
        """
        known = tuple(m.name for m in dataset.modalities)
        modalities = self.modalities or known
        for name in modalities:
            if name not in known:
                raise ConfigError(
                    f"The configuration asks for modality '{name}', but {dataset.path / 'dataset.json'} declares "
                    f"{', '.join(known)}: name one of those or add it to the dataset."
                )
            if _is_taken(name):
                raise ConfigError(
                    f"{dataset.path / 'dataset.json'} declares a modality '{name}', but a part of the network is "
                    "called so: rename the modality there, and its folder of chips."
                )
        anchor = self.anchor or (dataset.anchor if dataset.anchor in modalities else modalities[0])
        _require(anchor in modalities, "anchor", anchor, f"name one of the used modalities {', '.join(modalities)}")
        for name in self.jitter_exempt:
            _require(name in known, "jitter_exempt", name, f"choose among {', '.join(known)}")
        choices = (*modalities, *PARTS)
        for key, parts in (("freeze", self.freeze), ("slow", tuple(dict(self.slow)))):
            for part in parts:
                _require(part in choices, key, part, f"choose among {', '.join(choices)}")
        return replace(self, modalities=modalities, anchor=anchor)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        data: dict[str, Any] = json.loads(json.dumps({**asdict(self), "slow": dict(self.slow)}))
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DetectorConfig:
        """Build from JSON.

        Raises:
            ConfigError: a key is unknown or a value makes no sense.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"The configuration is {data!r}: give a JSON object of settings.")
        known = {field.name for field in fields(cls)}
        for key in data:
            if key not in known:
                raise ConfigError(f"The configuration key '{key}' is unknown: use {', '.join(sorted(known))}.")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        if "slow" in data:
            values["slow"] = _factors(data["slow"])
        return cls(**values)


@cache
def _kinds() -> dict[str, Any]:
    """The type of every setting."""
    return get_type_hints(DetectorConfig)


def _fits(value: object, kind: Any) -> bool:
    """Whether a value has a setting's type; NaN, infinity and booleans do not count as numbers."""
    if isinstance(kind, UnionType):
        return any(_fits(value, choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, tuple) or (kinds[-1] is not Ellipsis and len(value) != len(kinds)):
            return False
        return all(_fits(item, kinds[0 if kinds[-1] is Ellipsis else n]) for n, item in enumerate(value))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _is_taken(name: str) -> bool:
    """Whether the name is that of another part of the network, or cannot be a key of a ModuleDict."""
    from torch import nn  # here: who only reads and writes settings needs no torch

    return name in (*PARTS, STACKED) or hasattr(nn.ModuleDict(), name)


def _factors(slow: Any) -> Any:
    """Parts with their factors, from a JSON object or from pairs; anything else is returned as is, for validation."""
    given = list(slow.items()) if isinstance(slow, Mapping) else slow
    if isinstance(given, list | tuple):
        given = tuple(tuple(pair) if isinstance(pair, list) else pair for pair in given)
    if not _fits(given, tuple[tuple[str, float], ...]):
        return given
    return tuple((part, float(factor)) for part, factor in given)


def _require(condition: bool, key: str, value: object, remedy: str) -> None:
    if not condition:
        raise ConfigError(f"The configuration value {key} = {value!r} makes no sense: {remedy}.")
