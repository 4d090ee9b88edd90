"""Choosing the anchor by measurement: the modality whose own detector finds the most.

A residual keeps the anchor's map, and neck and heads come from the anchor's detector, so a weak anchor limits the
result (docs/detector.md, Tree crowns).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_backend.detector.checkpoint import Checkpoint, inspect, replace_file
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.errors import CannotResumeError, ConfigError, DatasetError
from ml_backend.detector.evaluation import evaluate
from ml_backend.detector.progress import Progress
from ml_backend.detector.validation import holds_objects

SPLIT = "val"


def require_choice(dataset: DatasetSpec, config: DetectorConfig, sources: Mapping[str, Checkpoint]) -> None:
    """Check that an anchor can be chosen.

    Args:
        dataset: whose validation split decides.
        config: of the fine-tuning, not resolved.
        sources: detectors that need no pretraining, by modality.

    Raises:
        ConfigError: an anchor is configured, or a detector is not unimodal.
        DatasetError: the validation split is missing or has no objects.
    """
    if config.anchor:
        raise ConfigError(
            f"The anchor '{config.anchor}' is named, and is to be chosen by measurement (--choose-anchor): leave one "
            "of both out."
        )
    for name, source in sources.items():
        if len(source.config.modalities) > 1:
            raise ConfigError(
                f"{source.path} was trained on {', '.join(source.config.modalities)} together, so it gives no score of "
                f"'{name}' alone: name the anchor, or give a detector of '{name}' alone."
            )
    used = dataset.seen_by(config.resolve(dataset).modalities)
    if not dataset.has_split(SPLIT) or not holds_objects(used, SPLIT):
        raise DatasetError(
            f"{dataset.annotation_file(SPLIT)} is missing or holds no objects, so no anchor can be chosen by it: label "
            "at least one there, or name the anchor."
        )


def anchor_scores(
    dataset: DatasetSpec,
    checkpoints: Mapping[str, Path],
    metrics: Mapping[str, Mapping[str, Any]],
    device: str,
    progress: Progress | None = None,
) -> dict[str, float]:
    """A score in 0..1 for each modality: how much of the validation split its detector finds.

    It is mask AP50 times the share of the split's objects that lie on tiles with the modality: a DEM of only a few
    tiles is a poor anchor, however good it is there. Empty if the split has no objects.

    Args:
        dataset: with the used modalities.
        checkpoints: each modality's detector.
        metrics: of those that were evaluated on that split in their training.
        device: for evaluating the others.
        progress: called with the share of one modality's tiles that is done, and a line of text.
    """
    scores: dict[str, float] = {}
    if not dataset.has_split(SPLIT) or not (total := _objects(dataset)):
        return scores
    for name, checkpoint in checkpoints.items():
        if not (share := _objects(dataset.seen_by([name])) / total):
            scores[name] = 0.0
            continue
        known = metrics.get(name)
        if not known:
            found = evaluate(dataset.path, checkpoint, split=SPLIT, device=device, progress=progress, resamples=0)
            known = found.summary()
        scores[name] = share * (known["ap50"] or 0.0)
    return scores


def best_anchor(scores: Mapping[str, float], config: DetectorConfig) -> str:
    """The modality with the highest score; if several have, or without scores, the configuration's anchor.

    Args:
        scores: of :func:`anchor_scores`.
        config: resolved.
    """
    return max(config.modalities, key=lambda name: (scores.get(name, 0.0), name == config.anchor))


def kept_scores(
    file: Path, dataset: DatasetSpec, checkpoints: Mapping[str, Path], measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Read the scores of these models on this dataset from a file; if it has none, compute and store them.

    So an interrupted training in stages keeps its choice, although another device might round differently.

    Raises:
        CannotResumeError: the file is damaged.
    """
    models = {name: inspect(path)["weights"]["sha256"] for name, path in checkpoints.items()}
    measured_on = {"dataset": dataset.checksum, "models": models}
    if file.is_file():
        try:
            kept = json.loads(file.read_bytes())
        except ValueError:
            kept = None
        if not isinstance(kept, dict) or set(kept) != {"measured_on", "scores"}:
            raise CannotResumeError(f"{file} is damaged: remove it, and the anchor is chosen again.")
        if kept["measured_on"] == measured_on:
            scores: dict[str, float] = kept["scores"]
            return scores
    scores = measure()
    replace_file(file, json.dumps({"measured_on": measured_on, "scores": scores}, indent=2).encode())
    return scores


def _objects(dataset: DatasetSpec) -> int:
    return sum(not instance.ignored for tile in dataset.usable_tiles(SPLIT) for instance in tile.instances)
