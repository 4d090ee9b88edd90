"""The configuration of a training, as plain data that is stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, Strict
from pydantic.dataclasses import dataclass

from contracts.settings import STRICT, AtLeastOne, ModelSettings, NotNegative, Share, ShareBelowOne
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.errors import ConfigError

PARTS = ("neck", "rpn", "roi_head")
STACKED = "stacked"  # the one backbone of fusions that join the data
Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Positive = Annotated[float, Field(gt=0)]
AtLeastZero = Annotated[float, Field(ge=0)]
Names = Annotated[tuple[str, ...], Strict(False)]  # JSON has lists


def _pairs(slow: Any) -> Any:
    """Parts with their factors as pairs; in JSON they are an object."""
    return tuple(slow.items()) if isinstance(slow, Mapping) else slow


Scale = Annotated[float, Field(ge=0.1, le=4)]
Scales = Annotated[
    tuple[Scale, Scale],
    Strict(False),
    Field(description="a smallest and a largest factor from 0.1 to 4"),
]
Factors = Annotated[
    tuple[Annotated[tuple[str, Positive], Strict(False)], ...],
    Strict(False),
    BeforeValidator(_pairs),
    PlainSerializer(dict),
    Field(description='a factor above 0 per part, as {"rgb": 0.1}'),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DetectorConfig(ModelSettings, refusal=ConfigError):
    """A detector and how it is trained: all of :class:`contracts.settings.ModelSettings`, and what only it knows.

    An empty ``anchor`` means the dataset's, or the first modality used. All tiles, windows and rasters are resampled by
    the one factor that ``image_size`` makes (:meth:`reduction`), so they keep their shape and scale.

    Attributes:
        modalities: names of the modalities used; empty means all of the dataset, in its order.
        accumulate: forward passes per optimizer step; a step learns from ``batch_size * accumulate`` tiles.
        learning_rate: peak of the schedule (AdamW; linear warmup, cosine decay). The paper's is 1.6e-4 for long
            schedules from pretrained weights; the default suits short ones from scratch.
        weight_decay: AdamW's, not applied to norms, biases and relative positions.
        warmup: steps of linear warmup.
        grad_clip: largest gradient norm.
        freeze: parts whose weights are not trained: modality names (their backbone), ``neck``, ``rpn``, ``roi_head``.
        slow: parts with a lower learning rate, each with its factor; in JSON ``{"rgb": 0.1}``.
        fusion_rate: factor of the fusion's learning rate where it is newly initialised among pretrained parts,
            since it has only the fine-tuning to learn in. From scratch, or when a whole model is continued, all parts
            have the same learning rate.
        precision: ``bfloat16`` is mixed precision, ``float32`` full precision; ``auto`` chooses the first on GPUs that
            support it and the second elsewhere.
        ema: decay of the weights' moving average, which is then evaluated and published; 0 turns it off.
        radiometric_jitter: standard deviation of random gain and offset, in units of the modality's own std.
        jitter_exempt: modalities without this jitter, because their absolute values carry meaning.
        scale_jitter: smallest and largest factor by which training tiles are resized before they are cropped or padded
            to their original size (Ghiasi et al. 2021 use 0.1 to 2 for long schedules); 1, 1 turns it off.
        copy_paste: probability that objects of another training tile are pasted onto a training tile.
        min_instance_pixels: smaller objects, in network pixels, are ignored: they are neither positive nor negative.
        eval_interval: steps between evaluations on ``val``; 0 evaluates once at the end. With several evaluations,
            the best weights are published.
        patience: end the training after so many evaluations without a better mask AP50; 0 turns this off.
        save_interval: steps between saved resume states.
        pretrained: MViTv2 weights that every backbone starts from: a file or ``hf://owner/repository/file`` (see
            :mod:`ml_backend.detector.model.pretrained`); empty means random initialisation.
        activation_checkpointing: recompute the backbones' activations in the backward pass instead of storing them:
            less memory, about a third more time.
    """

    modalities: Names = ()
    learning_rate: Positive = 5e-4
    weight_decay: AtLeastZero = 0.05
    warmup: NotNegative = 20
    grad_clip: Positive = 5.0
    freeze: Names = ()
    radiometric_jitter: AtLeastZero = 0.1
    jitter_exempt: Names = ()
    scale_jitter: Scales = (1.0, 1.0)
    copy_paste: Share = 0.0
    min_instance_pixels: AtLeastOne = 4
    eval_interval: NotNegative = 0
    save_interval: AtLeastOne = 25
    pretrained: str = ""
    accumulate: AtLeastOne = 1
    slow: Factors = ()
    fusion_rate: Positive = 4.0
    precision: Precision = "auto"
    activation_checkpointing: bool = False
    ema: ShareBelowOne = 0.0
    patience: NotNegative = 0

    def __post_init__(self) -> None:
        if self.patience and not self.eval_interval:
            self.refuse("patience", "it needs `eval_interval`, too")
        if self.scale_jitter[0] > self.scale_jitter[1]:
            self.refuse("scale_jitter", "it must be a smallest and a largest factor, in this order")
        if both := set(dict(self.slow)) & set(self.freeze):
            self.refuse("slow", f"`freeze` names {min(both)!r}, too: freeze a part or slow it, not both")
        if len(dict(self.slow)) < len(self.slow):
            self.refuse("slow", "it must name each part once")
        if len(set(self.modalities)) < len(self.modalities):
            self.refuse("modalities", "it must name each modality once")

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
                    f"The configuration asks for modality '{name}', but {dataset.file} declares "
                    f"{', '.join(known)}: name one of those or add it to the dataset."
                )
            if _is_taken(name):
                raise ConfigError(
                    f"{dataset.file} declares a modality '{name}', but a part of the network is "
                    "called so: rename the modality there, and its folder of chips."
                )
        anchor = self.anchor or (dataset.anchor if dataset.anchor in modalities else modalities[0])
        parts = (*modalities, *PARTS)
        named = {"anchor": ((anchor,), modalities), "jitter_exempt": (self.jitter_exempt, known)}
        named |= {"freeze": (self.freeze, parts), "slow": (tuple(dict(self.slow)), parts)}
        for key, (names, choices) in named.items():
            for name in names:
                if name not in choices:
                    raise ConfigError(f"`{key}` names {name!r}; it can be {' or '.join(choices)}.")
        return replace(self, modalities=modalities, anchor=anchor)


def _is_taken(name: str) -> bool:
    """Whether the name is that of another part of the network, or cannot be a key of a ModuleDict."""
    from torch import nn  # here: who only reads and writes settings needs no torch

    return name in (*PARTS, STACKED) or hasattr(nn.ModuleDict(), name)
