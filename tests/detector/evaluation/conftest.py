"""Datasets to evaluate on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml_backend.detector import Detection, read_dataset
from ml_backend.detector.dataset import DatasetSpec
from tests.detector.evaluation.answers import guesses


@pytest.fixture(scope="session")
def dataset(dataset_dir: Path) -> DatasetSpec:
    return read_dataset(dataset_dir)


@pytest.fixture(scope="session")
def crowded(tmp_path_factory: pytest.TempPathFactory, generate: Callable[..., Path]) -> DatasetSpec:
    """Two classes, ignored regions, regions of three names: what COCO's rules are about."""
    root = generate(tmp_path_factory.mktemp("crowded") / "data", train=24, val=1, test=1, size=64, seed=5)
    meta = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**meta, "classes": ["RTS", "lake", "gully"]}))
    file = root / "annotations/train.json"
    data = json.loads(file.read_text())
    for number, annotation in enumerate(data["annotations"]):
        annotation["category_id"] = 1 + number % 2
        annotation["iscrowd"] = int(number % 7 == 3)
    for number, image in enumerate(data["images"]):
        image["region"] = f"region-{number % 3}"
    file.write_text(json.dumps(data))
    return read_dataset(root)


@pytest.fixture(scope="session")
def crowded_answers(crowded: DatasetSpec) -> list[list[Detection]]:
    """Guesses of which some name the wrong class."""
    rng = np.random.default_rng(1)
    return [
        [replace(d, class_name=crowded.classes[rng.integers(0, 2)]) for d in found] for found in guesses(crowded, 2)
    ]
