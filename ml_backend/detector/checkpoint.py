"""Checkpoints: a folder with ``model.safetensors`` and ``model.json`` (the card). Nothing is ever unpickled.

The card says what the weights are: configuration, classes, modalities with their normalisation, metrics, the dataset
they were trained on, the version of the code, and the SHA-256 of the weights, so that a damaged file is refused.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from contracts.checkpoint import CARD_FILE, CARD_FORMAT, WEIGHTS_FILE, network_version
from contracts.network import NETWORK_VERSION
from ml_backend.detector.calibration import Calibration
from ml_backend.detector.card import read_card
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.errors import CheckpointError

DEFAULT_SIDE = 512


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose card has been read; the weights are read by :meth:`weights`."""

    path: Path
    card: Mapping[str, Any]

    @property
    def config(self) -> DetectorConfig:
        """The configuration it was trained with."""
        return DetectorConfig.from_json(self.card["config"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""
        return tuple(self.card["classes"])

    @property
    def modalities(self) -> tuple[ModalitySpec, ...]:
        """Its input modalities, in order, with their normalisation."""
        return tuple(ModalitySpec.from_json(entry, self.path / CARD_FILE) for entry in self.card["modalities"])

    @property
    def calibration(self) -> Calibration:
        """The score threshold, temperature and overlap determined on validation."""
        return Calibration.from_metrics(self.card.get("metrics") or {})

    @property
    def longest_side(self) -> int:
        """Longest side of a training tile in pixels; :data:`DEFAULT_SIDE` if the card is too old to hold it."""
        return int(self.card.get("tile_size", DEFAULT_SIDE))

    @property
    def reduction(self) -> float:
        """Ground pixels per network pixel.

        Cards without it are from versions that resized every tile to a square of ``image_size``. For square tiles of
        one size that equals the value used here: the longest side divided by ``image_size``.
        """
        return float(self.card.get("ground_pixels_per_network_pixel", self.config.reduction(self.longest_side)))

    def require_same_network(self) -> Self:
        """Return itself if its configuration builds the same network in this version of the code.

        Raises:
            CheckpointError: it was trained with another version of the network, for which its weights are not valid.
        """
        if (version := network_version(self.card)) != NETWORK_VERSION:
            raise CheckpointError(
                f"{self.path} is of version {version} of the network, but this ThawLoop computes version "
                f"{NETWORK_VERSION}, to which its weights mean something else: train it again, or use the ThawLoop "
                "that wrote it."
            )
        return self

    def weights(self) -> dict[str, Any]:
        """The tensors by name.

        Raises:
            CheckpointError: the file is missing, truncated or altered.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        file = self.path / WEIGHTS_FILE
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing: copy the whole checkpoint folder again.") from None
        if hashlib.sha256(data).hexdigest() != self.card["weights"]["sha256"]:
            raise CheckpointError(f"{file} is truncated or altered (its checksum is not the card's): copy it again.")
        try:
            return dict(load(data))
        except SafetensorError as error:
            raise CheckpointError(f"{file} is not a safetensors file ({error}): copy it again.") from None


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Read the card of a checkpoint, given its folder or either of its files.

    Raises:
        CheckpointError: there is no valid card of a known format.
    """
    folder = Path(path)
    if folder.name in (WEIGHTS_FILE, CARD_FILE):
        folder = folder.parent
    return Checkpoint(folder, read_card(folder / CARD_FILE))


def inspect(path: Path | str) -> dict[str, Any]:
    """The card of a checkpoint, without loading its weights (see :func:`open_checkpoint`)."""
    return dict(open_checkpoint(path).card)


def write_checkpoint(folder: Path, weights: Mapping[str, Any], card: Mapping[str, Any]) -> Checkpoint:
    """Write weights and card; the card comes last, so an interrupted write never leaves an apparently complete one.

    Args:
        folder: to write to; an older checkpoint in it is replaced.
        weights: tensors by name.
        card: everything but ``format``, ``code_version`` and ``weights``, which are added.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    data = save(tensors)
    full = {
        "format": CARD_FORMAT,
        **card,
        "code_version": code_version(),
        "weights": {
            "file": WEIGHTS_FILE,
            "sha256": hashlib.sha256(data).hexdigest(),
            "parameters": sum(t.numel() for t in tensors.values()),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS_FILE, data)
    replace_file(folder / CARD_FILE, json.dumps(full, indent=2).encode())
    return Checkpoint(folder, full)


def replace_file(file: Path, data: bytes) -> None:
    """Write a file atomically: after a crash it is either the old or the new one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def code_version() -> str:
    """The installed version of ThawLoop, or ``unversioned`` when run from a bare source tree."""
    try:
        return importlib.metadata.version("thawloop")
    except importlib.metadata.PackageNotFoundError:
        return "unversioned"
