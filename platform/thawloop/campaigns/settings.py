"""A campaign's settings for acquisition and for the model, as the JSON fields of Campaign hold them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Self

from thawloop.core.errors import Refused

STRATEGIES = ("entropy_disagreement_kcenter", "uncertainty", "kcenter", "random")
# The detector's own; it cannot be asked, because the web process runs without it.
SIZES = ("nano", "tiny", "small", "base")
FUSIONS = ("residual_cross_attention", "cross_attention", "conv", "channel_attention", "cbam", "stack")
BEST = "best"


class SettingsError(Refused):
    """A setting is unknown or its value makes no sense; the message names it."""


class _Settings:
    """Strict conversion between a frozen dataclass and JSON."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build from JSON; what is missing takes its default.

        Raises:
            SettingsError: a key is unknown or a value makes no sense.
        """
        if not isinstance(data, Mapping):
            raise SettingsError(f"{cls.__name__} are {data!r}; they must be names with values.")
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # subclasses are dataclasses
        for key in data:
            if key not in known:
                close = get_close_matches(str(key), known, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}."
                raise SettingsError(f"Unknown setting `{key}`; {hint}")
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `from_json` is the inverse."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]  # as above
        return plain

    def _one_of(self, key: str, choices: Sequence[str]) -> None:
        value = getattr(self, key)
        if value not in choices:
            raise SettingsError(f"`{key}` is {value!r}; it can be {' or '.join(choices)}.")

    def _whole(self, key: str, minimum: int) -> None:
        value = getattr(self, key)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise SettingsError(f"`{key}` is {value!r}; it must be a whole number of at least {minimum}.")

    def _share(self, key: str, *, below_one: bool = False) -> None:
        value = getattr(self, key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 1 or (below_one and value == 1):
            raise SettingsError(f"`{key}` is {value!r}; it must be a number from 0 to {'below ' * below_one}1.")


@dataclass(frozen=True)
class AcquisitionSettings(_Settings):
    """How tiles are chosen for annotation.

    Attributes:
        strategy: `entropy_disagreement_kcenter` (uncertain and different tiles), `uncertainty`, `kcenter` (different
            tiles) or `random`. Without a model, tiles are spread over the map, or drawn at random if that is asked for.
        batch_size: Tiles per batch, both arms together.
        random_fraction: Share of the batch drawn at random: the control arm.
        seed: Of the random choices; each batch adds its number.
        initial_batch_size: Tiles of a batch while there is no model yet.
        pool_factor: `entropy_disagreement_kcenter` thins this many times the batch's most uncertain tiles.
    """

    strategy: str = "entropy_disagreement_kcenter"
    batch_size: int = 20
    random_fraction: float = 0.2
    seed: int = 0
    initial_batch_size: int = 20
    pool_factor: float = 4.0

    def __post_init__(self) -> None:
        self._one_of("strategy", STRATEGIES)
        self._whole("batch_size", 1)
        self._share("random_fraction")
        self._whole("seed", 0)
        self._whole("initial_batch_size", 1)
        factor = self.pool_factor
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= 1000:
            raise SettingsError(f"`pool_factor` is {factor!r}; it must be a number from 1 to 1000.")


@dataclass(frozen=True)
class DetectorSettings(_Settings):
    """The model of a campaign and how long it trains.

    Attributes:
        size: `nano` (CPU), `tiny` (MViTv2-T, the paper's), `small` or `base`.
        fusion: How modalities are joined.
        anchor: The modality that fusion adds the others to, where it is not the one people draw on. `best` is the one
            whose own detector finds the most of the val tiles, chosen once, when modalities have been pretrained. Empty
            is the campaign's anchor.
        iterations: Optimizer steps of the multimodal fine-tuning.
        pretrain_iterations: Optimizer steps of the unimodal pretraining of each modality without usable weights;
            0 trains the multimodal model at once.
        batch_size: Tiles per step.
        learning_rate: Peak learning rate; None is the detector's own choice.
        image_size: Network pixels of a tile's longest side: tiles are resampled to it; None keeps their size.
        modality_dropout: Chance that a modality other than the anchor is hidden from a training tile.
        empty_share: Share of training tiles drawn from those without objects.
        seed: Of weights and data order; each retraining adds its number.
    """

    size: str = "nano"
    fusion: str = "residual_cross_attention"
    anchor: str = ""
    iterations: int = 150
    pretrain_iterations: int = 60
    batch_size: int = 4
    learning_rate: float | None = None
    image_size: int | None = None
    modality_dropout: float = 0.1
    empty_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        self._one_of("size", SIZES)
        self._one_of("fusion", FUSIONS)
        if not isinstance(self.anchor, str):
            raise SettingsError(f"`anchor` is {self.anchor!r}; it must be the name of a modality.")
        self._whole("iterations", 1)
        self._whole("pretrain_iterations", 0)
        self._whole("batch_size", 1)
        if self.image_size is not None:
            self._whole("image_size", 32)
        rate = self.learning_rate
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1):
            raise SettingsError(f"`learning_rate` is {rate!r}; it must be a number above 0 and below 1.")
        self._share("modality_dropout", below_one=True)
        self._share("empty_share", below_one=True)
        self._whole("seed", 0)

    def check_anchor(self, inputs: Sequence[str]) -> None:
        """Refuse an anchor that the model is not given.

        Args:
            inputs: Names of the modalities that are the model's inputs.

        Raises:
            SettingsError: it is none of them.
        """
        if self.anchor == BEST and BEST in inputs:
            raise SettingsError(
                f"`anchor` is {BEST!r}, which is a modality's name and also means the one that finds the most: rename "
                "the modality."
            )
        if self.anchor and self.anchor not in (BEST, *inputs):
            known = " or ".join((*inputs, f"{BEST} (as measured)"))
            raise SettingsError(f"`anchor` is {self.anchor!r}, which is no input of the model; it can be {known}.")
