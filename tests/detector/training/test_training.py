"""Training: resumes exactly, refuses what it must, starts from earlier models."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ml_backend.detector import (
    CannotResumeError,
    CheckpointError,
    ConfigError,
    DatasetError,
    DetectorConfig,
    TrainingDivergedError,
    TrainingStoppedError,
    TrainResult,
    inspect,
    open_checkpoint,
    train,
)
from ml_backend.detector.training import learning_rate
from tests.detector.training.checkpoints import weights


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_a_stopped_training_continues_to_the_same_weights(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    whole = train(dataset_dir, tmp_path / "whole", quick, device="cpu")
    with pytest.raises(TrainingStoppedError, match=r"step 1 of 2.*same command continues"):
        train(dataset_dir, tmp_path / "parts", quick, device="cpu", should_stop=lambda: True)
    told: list[str] = []
    parts = train(dataset_dir, tmp_path / "parts", quick, device="cpu", progress=lambda _, text: told.append(text))
    assert not any(text.startswith("iter 1/") for text in told), "the first step is not repeated"
    assert_equal(weights(parts), weights(whole))
    assert parts.iterations == whole.iterations == 2


@pytest.mark.slow
def test_a_killed_training_continues_to_the_same_weights(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    """SIGKILL in the middle, as an out-of-memory killer or a power cut would."""
    config = replace(quick, iterations=4)
    arguments = ["train", "--dataset", dataset_dir, "--out", tmp_path / "killed", "--device", "cpu"]
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps(config.to_json()))
    process = subprocess.Popen(
        [sys.executable, "-m", "ml_backend.detector", *map(str, arguments), "--config", str(settings), "--json"],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    state = tmp_path / "killed/state.pth"
    while not state.is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was still training"
    assert not (tmp_path / "killed/checkpoint").exists()
    told: list[str] = []
    resumed = train(dataset_dir, tmp_path / "killed", config, device="cpu", progress=lambda _, text: told.append(text))
    whole = train(dataset_dir, tmp_path / "whole", config, device="cpu")
    assert not any(text.startswith("iter 1/") for text in told)
    assert_equal(weights(resumed), weights(whole))


def test_a_finished_training_returns_at_once(dataset_dir: Path, trained: TrainResult) -> None:
    config = DetectorConfig.from_json(inspect(trained.checkpoint)["config"])
    out = trained.checkpoint.parent
    again = train(dataset_dir, out, config, device="cpu", progress=lambda *_: pytest.fail("it worked again"))
    assert again == trained


def test_a_repaired_dataset_trains_in_the_folder_where_it_was_refused(
    own_dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    chip = own_dataset_dir / "chips/rgb/train_0001.tif"
    intact = chip.read_bytes()
    chip.write_bytes(b"broken")
    with pytest.raises(DatasetError, match="cannot be read"):
        train(own_dataset_dir, tmp_path / "out", quick, device="cpu")
    chip.write_bytes(intact)
    assert train(own_dataset_dir, tmp_path / "out", quick, device="cpu").iterations == 2


def test_another_training_in_the_same_folder_is_refused_unless_discarded(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = train(dataset_dir, out, quick, device="cpu")
    before = weights(first)
    other = replace(quick, seed=1)
    with pytest.raises(CannotResumeError, match=r"another configuration, dataset, start or version.*--no-resume"):
        train(dataset_dir, out, other, device="cpu")
    with pytest.raises(CheckpointError, match="would be discarded before it is read"):
        train(dataset_dir, out, other, init=out / "checkpoint", device="cpu", resume=False)
    assert_equal(weights(first), before)
    train(dataset_dir, out, other, device="cpu", resume=False)
    assert inspect(out / "checkpoint")["config"]["seed"] == 1


def test_a_changed_dataset_is_another_training(own_dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    train(own_dataset_dir, tmp_path / "out", quick, device="cpu")
    chips = own_dataset_dir / "chips/rgb"
    shutil.copy(chips / "train_0001.tif", chips / "train_0002.tif")
    with pytest.raises(CannotResumeError, match=r"another configuration, dataset"):
        train(own_dataset_dir, tmp_path / "out", quick, device="cpu")


def test_divergence_stops_and_keeps_the_last_good_weights(
    own_dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    """A learning rate beyond reason, after one step that is still finite."""
    config = replace(quick, iterations=30, learning_rate=1e18, warmup=0, grad_clip=1e30)
    with pytest.raises(
        TrainingDivergedError, match=r"stopped being a number at step .* of 30; the last good checkpoint"
    ):
        train(own_dataset_dir, tmp_path / "out", config, device="cpu")
    kept = open_checkpoint(tmp_path / "out/checkpoint")
    assert kept.card["iterations"] >= 1
    assert all(torch.isfinite(tensor).all() for tensor in kept.weights().values())


def test_the_best_evaluation_is_published(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    result = train(dataset_dir, tmp_path / "out", replace(quick, eval_interval=1), device="cpu")
    card = inspect(result.checkpoint)
    assert 1 <= card["iterations"] <= 2
    assert card["metrics"] == result.metrics


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = DetectorConfig(iterations=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.01 <= rates[-1] < 0.02


@pytest.mark.parametrize(
    "settings",
    [
        {"size": "huge"},
        {"fusion": "magic"},
        {"iterations": 0},
        {"learning_rate": -1.0},
        {"modality_dropout": 1.0},
        {"modalities": ["rgb", "rgb"]},
        {"colour": "red"},
        {"accumulate": 0},
        {"precision": "float8"},
        {"ema": 1.0},
        {"patience": 3},
        {"slow": {"rgb": 0}},
        {"slow": {"rgb": "slowly"}},
        {"slow": {"rgb": 0.5}, "freeze": ["rgb"]},
        {"slow": {"rgb": "0.5"}},
        {"slow": {"rgb": True}},
        {"slow": {"rgb": float("inf")}},
        {"slow": {"rgb": None}},
        {"slow": "rgb"},
        {"slow": [["rgb", 0.5, 1]]},
        {"slow": 3},
        {"size": None},
        {"size": ["nano"]},
        {"fusion": {}},
        {"anchor": 1},
        {"iterations": 1.5},
        {"iterations": "10"},
        {"iterations": True},
        {"iterations": None},
        {"batch_size": [2]},
        {"learning_rate": "1e-3"},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rate": 10**400},
        {"learning_rate": True},
        {"weight_decay": -0.1},
        {"weight_decay": float("nan")},
        {"warmup": -1},
        {"warmup": 2.0},
        {"grad_clip": 0},
        {"fusion_rate": 0},
        {"grad_clip": float("inf")},
        {"seed": -1},
        {"seed": 2**53},
        {"seed": 0.5},
        {"image_size": 64.0},
        {"image_size": "64"},
        {"radiometric_jitter": -1},
        {"radiometric_jitter": float("nan")},
        {"scale_jitter": [0.5, 1, 2]},
        {"scale_jitter": 0.5},
        {"scale_jitter": [float("nan"), 1]},
        {"eval_interval": -1},
        {"freeze": "rgb"},
        {"freeze": [1]},
        {"jitter_exempt": {"rgb": 1}},
        {"modalities": [["rgb"]]},
        {"pretrained": None},
        {"activation_checkpointing": "no"},
        {"activation_checkpointing": 1},
    ],
)
def test_senseless_settings_are_refused_by_name(settings: dict[str, object]) -> None:
    key = next(iter(settings))
    with pytest.raises(ConfigError, match=rf"^(Unknown setting )?`{key}`.*[;:] .+\.$") as refused:
        DetectorConfig.from_json(settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"modalities": "rgb"}, "`modalities` is 'rgb'; it must be a list of names."),
        ({"iterations": "10"}, "`iterations` is '10'; it must be a whole number, at least 1."),
        ({"learning_rate": "fast"}, "it must be a number, above 0."),
        ({"image_size": "64"}, "it must be a whole number, at least 32, or null."),
        ({"activation_checkpointing": "no"}, "it must be true or false."),
        ({"slow": "rgb"}, 'it must be a factor above 0 per part, as {"rgb": 0.1}.'),
        ([1], "[1]; they must be names with values."),
    ],
)
def test_settings_of_the_wrong_kind_are_told_the_right_one(settings: dict[str, object], remedy: str) -> None:
    with pytest.raises(ConfigError) as refused:
        DetectorConfig.from_json(settings)
    assert remedy in str(refused.value)


def test_every_default_is_of_its_own_kind_and_whole_numbers_are_numbers() -> None:
    assert DetectorConfig.from_json(DetectorConfig().to_json()) == DetectorConfig()
    assert DetectorConfig.from_json({"learning_rate": 1, "slow": {"rgb": 2}, "scale_jitter": [1, 2]}).slow == (
        ("rgb", 2.0),
    )


def test_settings_survive_json() -> None:
    config = DetectorConfig(
        modalities=("rgb", "ndvi"), anchor="ndvi", freeze=("rgb",), slow=(("ndvi", 0.1), ("neck", 0.5)), image_size=256
    )
    assert DetectorConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.to_json()["slow"] == {"ndvi": 0.1, "neck": 0.5}
    assert hash(config) == hash(DetectorConfig.from_json(config.to_json()))


def test_settings_of_earlier_versions_still_mean_the_same() -> None:
    earlier = {"size": "nano", "modalities": ["rgb"], "anchor": "rgb", "iterations": 3}
    assert DetectorConfig.from_json(earlier) == DetectorConfig(modalities=("rgb",), anchor="rgb", iterations=3)
