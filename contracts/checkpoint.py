"""What a checkpoint is: a folder with weights, a card that describes them, and the log of their training."""

from collections.abc import Mapping
from typing import Any

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
LOG_FOLDER = "log"
CARD_FORMAT = "thawloop-detector/1"
# Without these a card describes no model. The others: see `ml_backend.detector.training.assignment`, which writes them.
CARD_KEYS = ("classes", "config", "modalities", "weights")


def missing_keys(card: Mapping[str, Any]) -> list[str]:
    """Which of `CARD_KEYS` a card lacks."""
    return [key for key in CARD_KEYS if key not in card]


def network_version(card: Mapping[str, Any]) -> int:
    """The version of the network that the weights are of; only those of `NETWORK_VERSION` can be loaded."""
    version: int = card.get("architecture", 1)
    return version
