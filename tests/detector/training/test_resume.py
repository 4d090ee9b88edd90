"""What makes training better or fit must not make resuming less exact."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ml_backend.detector import (
    DetectorConfig,
    TrainingDivergedError,
    TrainingStoppedError,
    inspect,
    open_checkpoint,
    train,
)

CASES: dict[str, dict[str, Any]] = {
    "averaged, accumulated, slow and frozen": {
        "ema": 0.9,
        "accumulate": 2,
        "batch_size": 1,
        "slow": (("rgb", 0.1), ("rpn", 0.5)),
        "freeze": ("relative_elevation",),
    },
    "early stopping": {"iterations": 5, "eval_interval": 1, "patience": 1, "ema": 0.5},
    "mixed precision": {"precision": "bfloat16"},
}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            settings, id=name, marks=[pytest.mark.slow] if name in ("mixed precision", "early stopping") else []
        )
        for name, settings in CASES.items()
    ],
)
def test_a_training_in_pieces_ends_with_the_same_weights(
    settings: dict[str, Any], dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, **settings)
    whole = train(dataset_dir, tmp_path / "whole", config, device="cpu")
    stops = 0
    while True:
        try:
            pieces = train(dataset_dir, tmp_path / "pieces", config, device="cpu", should_stop=lambda: True)
            break
        except TrainingStoppedError:
            stops += 1
    assert pieces.iterations == whole.iterations == stops + 1, "it was stopped after every step but the last"
    assert {**pieces.metrics, "seconds": 0} == {**whole.metrics, "seconds": 0}
    a, b = (open_checkpoint(result.checkpoint).weights() for result in (whole, pieces))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_training_ends_when_evaluations_stop_getting_better(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    """A learning rate of nothing: the first evaluation is the best there will be."""
    config = replace(quick, iterations=50, learning_rate=1e-30, eval_interval=1, patience=1)
    result = train(dataset_dir, tmp_path / "out", config, device="cpu")
    assert result.iterations == 2
    assert inspect(result.checkpoint)["metrics"] == result.metrics
    again = train(dataset_dir, tmp_path / "out", config, device="cpu", progress=lambda *_: pytest.fail("it worked on"))
    assert again == result


def test_divergence_keeps_the_last_good_average(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    config = replace(quick, iterations=30, learning_rate=1e18, warmup=0, grad_clip=1e30, ema=0.9)
    with pytest.raises(TrainingDivergedError, match="the last good checkpoint"):
        train(dataset_dir, tmp_path / "out", config, device="cpu")
    kept = open_checkpoint(tmp_path / "out/checkpoint")
    assert kept.card["iterations"] >= 1
    state = torch.load(tmp_path / "out/state.pth", weights_only=True)
    weights = kept.weights()
    assert set(weights) == set(state["model"])
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert all(torch.equal(tensor, state["average"][f"module.{name}"]) for name, tensor in weights.items())
