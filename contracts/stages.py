"""Training in stages: which trainings a model needs, in which order, and what each starts from."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from contracts.network import stacks_bands

FINETUNE = "finetune"
# Pretraining takes its randomness from elsewhere, or fine-tuning would show the same tiles turned the same way again.
PRETRAINING_SEEDS = 1_000_000

Weights = TypeVar("Weights")


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        modalities: What it trains, in input order: one modality alone, or all of the model's together.
        pretrains: A modality, where it is trained alone for a later stage; empty in the last stage, which makes the
            model.
        anchor: The modality that the others are added to; None while it is to be chosen: of `sources` the one whose
            own detector finds the most.
        sources: Modalities whose own detectors it starts from, earlier stages' and those that were there.
        continues: Whether it starts from an earlier model of the same kind. Without this and sources, it starts from
            scratch.
    """

    modalities: tuple[str, ...]
    pretrains: str = ""
    anchor: str | None = None
    sources: tuple[str, ...] = ()
    continues: bool = False

    @property
    def name(self) -> str:
        """`pretrain-MODALITY` or `finetune`."""
        return f"pretrain-{self.pretrains}" if self.pretrains else FINETUNE

    def seed(self, seed: int) -> int:
        """Of this stage, given that of the whole."""
        return seed + PRETRAINING_SEEDS if self.pretrains else seed


def plan_stages(
    modalities: Iterable[str],
    *,
    fusion: str,
    anchor: str | None,
    there: Collection[str] = (),
    can_continue: bool = False,
    pretrains: bool = True,
) -> tuple[Stage, ...]:
    """The trainings of a model, in order; the last one makes it.

    A model of the same kind is continued. Otherwise a joint training starts from detectors of single modalities, those
    that are there and those that are pretrained for it: of all modalities, but for stacked bands, whose one backbone
    starts as the anchor's, of the anchor alone, unless it is to be chosen by them.

    Args:
        modalities: Names, in input order.
        fusion: How they are joined.
        anchor: The modality that the others are added to; None if the detectors of the single ones are to tell, which
            takes several modalities and pretraining.
        there: Modalities that there is a detector of already.
        can_continue: Whether there is a model of the same kind, anchor included.
        pretrains: Whether pretraining is wanted.
    """
    names = tuple(modalities)
    joint = len(names) > 1 and pretrains
    if anchor is None and not joint:
        raise ValueError("an anchor is chosen by pretrained detectors of several modalities")
    if anchor is not None and (can_continue or not joint):
        return (Stage(names, anchor=anchor, continues=can_continue),)
    sources = (anchor,) if anchor is not None and stacks_bands(fusion) else names
    alone = [Stage((name,), pretrains=name, anchor=name) for name in sources if name not in there]
    return (*alone, Stage(names, anchor=anchor, sources=sources))


def joint_start(alone: Mapping[str, Weights], *, fusion: str, anchor: str) -> dict[str, Weights]:
    """What of the unimodal weights, by modality, a joint training is given: the anchor's where bands are stacked."""
    return {anchor: alone[anchor]} if stacks_bands(fusion) else dict(alone)
