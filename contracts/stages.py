"""Training in stages: which modalities are trained alone first, and what the joint training starts from."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

STACKED = frozenset({"stack"})  # fusions with one backbone, which sees the bands of all modalities as one image
# Pretraining takes its randomness from elsewhere, or fine-tuning would show the same tiles turned the same way again.
PRETRAINING_SEEDS = 1_000_000

Weights = TypeVar("Weights")


def pretrained_alone(modalities: Iterable[str], *, fusion: str, anchor: str | None) -> tuple[str, ...]:
    """The modalities whose own detectors a joint training starts from.

    Args:
        modalities: Names, in input order.
        fusion: How they are joined.
        anchor: The modality that the others are added to; None while it is to be chosen, by those detectors.
    """
    return (anchor,) if anchor and fusion in STACKED else tuple(modalities)


def joint_start(alone: Mapping[str, Weights], *, fusion: str, anchor: str) -> dict[str, Weights]:
    """What of the unimodal weights, by modality, a joint training is given: the anchor's where bands are stacked."""
    return {anchor: alone[anchor]} if fusion in STACKED else dict(alone)
