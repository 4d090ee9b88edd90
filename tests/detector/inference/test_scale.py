"""The scale of the training, in ground pixels per network pixel, is the scale of everything that is predicted."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from ml_backend.detector import (
    CheckpointError,
    ChipInput,
    Detector,
    DetectorConfig,
    TrainResult,
    evaluate,
    inspect,
    load,
    read_dataset,
    train,
)
from ml_backend.detector.chips import read_tile
from ml_backend.detector.evaluation import Search
from ml_backend.detector.inference import network
from tests.detector.files import crop_tiles, edit_json

FIGURE = "ground_pixels_per_network_pixel"


@pytest.fixture(scope="module")
def oblong(generate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of 96 x 48 pixels."""
    root = generate(tmp_path_factory.mktemp("oblong") / "data", train=4, val=2, test=2, size=96, modalities=("rgb",))
    crop_tiles(root, lambda name: (48, 96))
    return root


@pytest.fixture(scope="module")
def reduced(oblong: Path, quick: DetectorConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A detector that sees them at half their size."""
    return train(oblong, tmp_path_factory.mktemp("reduced"), replace(quick, image_size=48), device="cpu")


class Look(NamedTuple):
    """What goes through the network, and the size it has on the ground."""

    pixels: torch.Tensor
    own: tuple[int, int]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Look]:
    looks: list[Look] = []
    find = network.detect

    def noting(model: Any, tiles: Any, symmetries: Any) -> Any:
        looks.extend(Look(*tile) for tile in tiles)
        return find(model, tiles, symmetries)

    monkeypatch.setattr(network, "detect", noting)
    return looks


def test_the_card_says_how_many_ground_pixels_a_network_pixel_is(reduced: TrainResult, trained: TrainResult) -> None:
    assert inspect(reduced.checkpoint)[FIGURE] == 2.0
    assert inspect(trained.checkpoint)[FIGURE] == 1.0


def test_tiles_windows_and_rasters_are_seen_at_the_scale_of_the_training(
    reduced: TrainResult, oblong: Path, seen: list[Look]
) -> None:
    evaluate(oblong, reduced.checkpoint, device="cpu", resamples=0)
    evaluate(oblong, reduced.checkpoint, device="cpu", resamples=0, search=Search(window=64))
    detector = load(reduced.checkpoint, "cpu")
    raster = ChipInput({"rgb": np.random.default_rng(0).random((3, 70, 250), dtype=np.float32)}, {})
    for window in (None, 50, 300):
        detector.predict([raster], window=window)
    assert {(48, 96), (48, 64), (70, 96), (50, 50), (70, 250)} <= {look.own for look in seen}
    assert all(look.pixels.shape[1:] == (look.own[0] / 2, look.own[1] / 2) for look in seen)


def test_a_window_of_a_raster_looks_to_the_network_as_the_tile_alone_does(
    reduced: TrainResult, oblong: Path, seen: list[Look]
) -> None:
    detector = load(reduced.checkpoint, "cpu")
    dataset = read_dataset(oblong)
    chip = read_tile(dataset, detector.modalities, dataset.tiles("train")[0])
    detector.predict([chip])
    beside = np.zeros((3, 48, 96), dtype=np.float32)
    detector.predict([ChipInput({"rgb": np.concatenate([chip.arrays["rgb"], beside], axis=2)}, {})])
    alone, first, *_ = seen
    assert torch.equal(alone.pixels, first.pixels)


def test_cards_without_the_figure_mean_the_longest_side_over_the_image_size(
    reduced: TrainResult, tmp_path: Path
) -> None:
    old = shutil.copytree(reduced.checkpoint, tmp_path / "old")
    edit_json(old / "model.json", lambda card: card.pop(FIGURE))
    assert load(old, "cpu").reduction == 2.0
    edit_json(old / "model.json", lambda card: card.pop("tile_size"))
    assert load(old, "cpu").reduction == pytest.approx(512 / 48)
    edit_json(old / "model.json", lambda card: card["config"].update(image_size=None))
    assert load(old, "cpu").reduction == 1.0


@pytest.mark.parametrize("figure", [0, -1, "2", True, 1e9, float("nan"), None])
def test_a_damaged_figure_is_refused(figure: object, trained: TrainResult, tmp_path: Path) -> None:
    bad = shutil.copytree(trained.checkpoint, tmp_path / "bad")
    edit_json(bad / "model.json", lambda card: card.update({FIGURE: figure}))
    with pytest.raises(CheckpointError, match=f"'{FIGURE}' is no positive number"):
        load(bad, "cpu")


@pytest.mark.slow
def test_an_export_keeps_the_scale(reduced: TrainResult, oblong: Path, tmp_path: Path) -> None:
    from ml_backend.detector.inference.export import export

    export(reduced.checkpoint, tmp_path / "onnx", size=(48, 96))
    dataset = read_dataset(oblong)
    detectors: list[Detector] = [load(path) for path in (reduced.checkpoint, tmp_path / "onnx")]
    chip = read_tile(dataset, detectors[0].modalities, dataset.tiles("test")[0])
    one, other = (detector.predict([chip])[0] for detector in detectors)
    np.testing.assert_allclose(other.embedding, one.embedding, atol=1e-4)
