"""The figures that the demo relies on. Minutes long: `pytest -m slow tests/detector`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.detector import DetectorConfig, evaluate, train

pytestmark = pytest.mark.slow
CONFIG = DetectorConfig(iterations=150, batch_size=4)


@pytest.fixture(scope="module")
def easy(generate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("easy") / "data", train=120, val=20, test=40)


@pytest.mark.parametrize("fusion", ["residual_cross_attention", "stack"])
def test_nano_learns_easy_slumps_from_scratch(fusion: str, easy: Path, tmp_path: Path) -> None:
    result = train(easy, tmp_path / "out", replace(CONFIG, fusion=fusion), device="cpu")
    quality = evaluate(easy, result.checkpoint, split="test", device="cpu")
    assert quality.ap50 > 0.6
    assert quality.f1 > 0.6


def test_a_warm_start_is_better_than_the_same_steps_from_scratch(
    easy: Path, generate: Callable[..., Path], tmp_path: Path
) -> None:
    champion = train(easy, tmp_path / "champion", replace(CONFIG, iterations=100), device="cpu")
    more = generate(tmp_path / "more", train=60, val=10, test=40, seed=7)
    short = replace(CONFIG, iterations=20, warmup=5)
    warm = train(more, tmp_path / "warm", short, init=champion.checkpoint, device="cpu")
    cold = train(more, tmp_path / "cold", short, device="cpu")
    ap50 = [evaluate(more, result.checkpoint, device="cpu").ap50 for result in (warm, cold)]
    assert ap50[0] > 0.6
    assert ap50[0] > ap50[1] + 0.1


def test_unimodal_pretraining_then_fine_tuning(easy: Path, tmp_path: Path) -> None:
    sources = {
        name: train(easy, tmp_path / name, replace(CONFIG, modalities=(name,), iterations=100), device="cpu").checkpoint
        for name in ("rgb", "relative_elevation")
    }
    tuned = train(easy, tmp_path / "tuned", replace(CONFIG, iterations=30, warmup=5), init=sources, device="cpu")
    assert evaluate(easy, tuned.checkpoint, device="cpu").ap50 > 0.6


def test_the_papers_size_trains_and_predicts(generate: Callable[..., Path], tmp_path: Path) -> None:
    data = generate(tmp_path / "data", train=2, val=1, test=1, size=96)
    result = train(data, tmp_path / "out", replace(CONFIG, size="tiny", iterations=2, batch_size=1), device="cpu")
    assert evaluate(data, result.checkpoint, device="cpu").n_tiles == 1
