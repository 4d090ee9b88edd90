"""Checkpoint folders: the card that says what the weights beside it are."""

import json
from pathlib import Path
from typing import cast

from contracts.checkpoint import CARD_FILE, Card, missing_keys
from thawloop.registry.errors import ModelRefused


def read_card(checkpoint: Path) -> Card:
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
    if missing := missing_keys(card if isinstance(card, dict) else {}):
        raise ModelRefused(
            f"The model card of checkpoint `{checkpoint.name}` lacks {', '.join(missing)}: restore the artifact from a "
            "backup, or train again."
        )
    return cast(Card, card)
