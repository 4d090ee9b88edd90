"""What a checkpoint is: a folder with weights, a card that describes them, and the log of their training."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
LOG_FOLDER = "log"
CARD_FORMAT = "thawloop-detector/1"


class CardWeights(TypedDict):
    """Of `WEIGHTS_FILE`: its name, its SHA-256, and how many numbers it holds."""

    file: NotRequired[str]
    sha256: str
    parameters: NotRequired[int]


class Card(TypedDict):
    """The card, as JSON. What is not required is missing from cards of earlier versions.

    Attributes:
        format: `CARD_FORMAT`.
        architecture: See `network_version`.
        config: The settings that trained it (the detector's `DetectorConfig`).
        classes: Names, in the order of the labels.
        modalities: In input order, as in `dataset.json`, each with `mean` and `std` per band.
        anchor: The modality that the others are added to.
        tile_size: Pixels of the longest side of a training tile.
        ground_pixels_per_network_pixel: Along each side.
        metrics: Of the weights on the validation split.
        iterations: Steps behind the weights.
        dataset: `name`, `version` and `checksum`.
        init: SHA-256 of the weights that it started from, by modality or as `all`.
        training: What the training took.
        created: ISO 8601.
        code_version: Of ThawLoop.
        weights: What they are.
        export: Of an exported model: its tile and graphs.
    """

    format: str
    architecture: NotRequired[int]
    config: dict[str, Any]
    classes: list[str]
    modalities: list[dict[str, Any]]
    anchor: NotRequired[str]
    tile_size: NotRequired[int]
    ground_pixels_per_network_pixel: NotRequired[float]
    metrics: NotRequired[dict[str, Any]]
    iterations: NotRequired[int]
    dataset: NotRequired[dict[str, str]]
    init: NotRequired[dict[str, Any]]
    training: NotRequired[dict[str, Any]]
    created: NotRequired[str]
    code_version: NotRequired[str]
    weights: CardWeights
    export: NotRequired[dict[str, Any]]


def missing_keys(card: Mapping[str, Any]) -> list[str]:
    """Which of the keys that every card has one lacks."""
    return sorted(Card.__required_keys__ - card.keys())


def network_version(card: Mapping[str, Any]) -> int:
    """The version of the network that the weights are of; only those of `NETWORK_VERSION` can be loaded."""
    version: int = card.get("architecture", 1)
    return version
