"""What the tests of inference share: a detector that knows next to nothing, and chips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ml_backend.detector import ChipInput, Detector, TrainResult, load, read_dataset
from ml_backend.detector.chips import read_tile


@pytest.fixture(scope="session")
def detector(trained: TrainResult) -> Detector:
    return load(trained.checkpoint, "cpu")


@pytest.fixture(scope="session")
def chips(dataset_dir: Path) -> list[ChipInput]:
    """The first training tiles; some lack the second modality."""
    dataset = read_dataset(dataset_dir)
    return [read_tile(dataset, dataset.modalities, tile) for tile in dataset.tiles("train")]


@pytest.fixture(scope="session")
def mosaic(chips: list[ChipInput]) -> ChipInput:
    """Four tiles side by side: 128 x 128 pixels, with all modalities."""
    whole = [chip for chip in chips if len(chip.arrays) == 2]
    rows = [[whole[0], whole[1]], [whole[2], whole[3]]]
    return ChipInput(
        {name: np.block([[chip.arrays[name] for chip in row] for row in rows]) for name in whole[0].arrays}, {}
    )
