"""Checkpoint folders: the card that says what the weights beside it are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thawloop.registry.errors import ModelRefused

CARD_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
LOG_FOLDER = "log"
VERSION = 3  # the detector's config.ARCHITECTURE: weights of another version are nothing to start from


def network_version(card: Mapping[str, Any]) -> int:
    """Which network a checkpoint's weights belong to: only those of `VERSION` can be loaded here."""
    version: int = card.get("architecture", 1)
    return version


def read_card(checkpoint: Path) -> dict[str, Any]:
    """The card of a checkpoint folder.

    Raises:
        ModelRefused: there is none that can be read.
    """
    file = checkpoint / CARD_FILE
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(
            f"The model card {file.name} of checkpoint `{checkpoint.name}` cannot be read ({error}): restore the "
            "artifact from a backup, or train again."
        ) from error
    if not isinstance(card, dict) or not {"config", "classes", "modalities"} <= set(card):
        raise ModelRefused(
            f"The model card of checkpoint `{checkpoint.name}` lacks config, classes or modalities: restore the "
            "artifact from a backup, or train again."
        )
    return card
