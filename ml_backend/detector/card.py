"""Reading the card of a checkpoint, with all checks, so that building the model from it cannot fail later."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.checkpoint import CARD_FORMAT, missing_keys
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.errors import CheckpointError, ConfigError, DatasetError

SHA256 = re.compile(r"[0-9a-f]{64}")


def read_card(file: Path) -> dict[str, Any]:
    """Read a card.

    Raises:
        CheckpointError: it is missing, damaged, of another format or of a newer version.
    """
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{file} is missing: give the folder of a checkpoint (its card and weights).") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}): allow it, or copy it again.") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file} is not valid JSON: copy the checkpoint again.") from None
    if not isinstance(card, dict) or card.get("format") != CARD_FORMAT:
        raise CheckpointError(f"{file} is not a detector card of format {CARD_FORMAT}: use a matching version.")
    if missing := missing_keys(card):
        raise CheckpointError(f"{file} lacks {', '.join(missing)}: copy the checkpoint again.")
    if problem := _problem(card) or _misfit(file, card):
        raise CheckpointError(f"{file} is damaged ({problem}): copy the checkpoint again.")
    return card


def _problem(card: Mapping[str, Any]) -> str:
    """What is wrong with an entry of a card; empty if nothing is."""
    classes, modalities, weights = (card[name] for name in ("classes", "modalities", "weights"))
    metrics, exported = card.get("metrics"), card.get("export")
    if not _is_list(classes, str) or len(set(classes)) != len(classes):
        return "'classes' is no list of names"
    if not _is_list(modalities, dict):
        return "'modalities' is no list of modalities"
    if not isinstance(weights, dict) or not SHA256.fullmatch(str(weights.get("sha256"))):
        return "'weights' holds no SHA-256"
    if not _is_whole(card.get("tile_size", 1)):
        return "'tile_size' is no number of pixels"
    if not _is_number(reduction := card.get("ground_pixels_per_network_pixel", 1)) or not 1e-6 < reduction < 1e6:
        return "'ground_pixels_per_network_pixel' is no positive number"
    if metrics is not None and not isinstance(metrics, dict):
        return "'metrics' is no object"
    for name in ("best_temperature", "best_score_threshold", "best_max_overlap"):
        if (value := (metrics or {}).get(name)) is not None and not _is_number(value):
            return f"'{name}' is no number"
    if exported is not None and not (
        isinstance(exported, dict)
        and _is_list(exported.get("tile"), int)
        and len(exported["tile"]) == 2
        and isinstance(exported.get("graphs"), dict)
    ):
        return "'export' does not name its tile and graphs"
    return ""


def _misfit(file: Path, card: Mapping[str, Any]) -> str:
    """How the configuration and the modalities disagree; empty if they agree.

    Raises:
        CheckpointError: the configuration is of a newer version, or damaged.
    """
    try:
        config = DetectorConfig.from_json(card["config"])
    except ConfigError as error:
        raise CheckpointError(
            f"{file} holds settings that this version of ThawLoop does not know ({str(error).rstrip('.')}): use the "
            "version of ThawLoop that wrote it or newer, or copy the checkpoint again."
        ) from None
    try:
        modalities = [ModalitySpec.from_json(entry, file) for entry in card["modalities"]]
    except DatasetError as error:
        return str(error).removeprefix(f"{file}: ").rstrip(".")
    for modality in modalities:
        if not modality.mean:
            return f"modality '{modality.name}' has no 'mean' and 'std'"
    names = [modality.name for modality in modalities]
    if names != list(config.modalities) or config.anchor not in names:
        return "'modalities' are not those of its settings"
    return ""


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf
