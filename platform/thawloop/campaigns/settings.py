"""A campaign's settings for acquisition and for the model, as the JSON fields of Campaign hold them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.acquisition import DEFAULT_POOL_FACTOR, DEFAULT_STRATEGY, Strategy
from contracts.settings import STRICT, AtLeastOne, ModelSettings, NotNegative, Settings, Share
from contracts.stages import Stage
from thawloop.core.errors import Refused

BEST = "best"


class SettingsError(Refused):
    """A setting is unknown or its value makes no sense; the message names it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AcquisitionSettings(Settings, refusal=SettingsError):
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

    strategy: Strategy = DEFAULT_STRATEGY
    batch_size: AtLeastOne = 20
    random_fraction: Share = 0.2
    seed: NotNegative = 0
    initial_batch_size: AtLeastOne = 20
    pool_factor: Annotated[float, Field(ge=1, le=1000)] = DEFAULT_POOL_FACTOR


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DetectorSettings(ModelSettings, refusal=SettingsError):
    """The model of a campaign and how long it trains: what the detector knows by the same names, and what it does not.

    The anchor is the modality that fusion adds the others to, where it is not the one people draw on. `best` is the one
    whose own detector finds the most of the val tiles, chosen once, when modalities have been pretrained. Empty is the
    campaign's anchor. `iterations` are those of the multimodal fine-tuning; each retraining adds its number to `seed`.

    Attributes:
        pretrain_iterations: Optimizer steps of the unimodal pretraining of each modality without usable weights;
            0 trains the multimodal model at once.
        learning_rate: Peak learning rate; None is the detector's own choice.
    """

    pretrain_iterations: NotNegative = 60
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None

    def iterations_of(self, stage: Stage) -> int:
        """Optimizer steps of one of the model's trainings."""
        return self.pretrain_iterations if stage.pretrains else self.iterations

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
            raise SettingsError(f"`anchor` is {self.anchor!r}, which is not an input of the model; it can be {known}.")
