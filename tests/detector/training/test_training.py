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
    load,
    open_checkpoint,
    read_dataset,
    train,
    train_in_stages,
)
from ml_backend.detector.chips import read_tile
from ml_backend.detector.training import learning_rate

BRANCH = "backbone.branches.{}."


@pytest.fixture(scope="module")
def unimodal(
    dataset_dir: Path, quick: DetectorConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainResult]:
    """A short pretraining per modality."""
    root = tmp_path_factory.mktemp("unimodal")
    return {
        name: train(dataset_dir, root / name, replace(quick, modalities=(name,), seed=seed), device="cpu")
        for seed, name in enumerate(("rgb", "relative_elevation"))
    }


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return open_checkpoint(result.checkpoint).weights()


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


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


def test_warm_start_begins_with_the_earlier_weights_and_normalisation(
    dataset_dir: Path, own_dataset_dir: Path, trained: TrainResult, quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=1, learning_rate=1e-12)
    result = train(own_dataset_dir, tmp_path / "out", config, init=trained.checkpoint, device="cpu")
    earlier, later = weights(trained), weights(result)
    for name in earlier:
        torch.testing.assert_close(later[name], earlier[name], atol=1e-6, rtol=0)
    cards = inspect(trained.checkpoint), inspect(result.checkpoint)
    assert cards[0]["modalities"] == cards[1]["modalities"]
    assert cards[1]["init"] == {"all": cards[0]["weights"]["sha256"]}


@pytest.mark.parametrize("anchor", ["rgb", "relative_elevation"])
def test_fine_tuning_takes_each_backbone_from_its_own_model_and_heads_from_the_anchor(
    anchor: str, dataset_dir: Path, unimodal: dict[str, TrainResult], quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=1, learning_rate=1e-12, anchor=anchor)
    sources = {name: result.checkpoint for name, result in unimodal.items()}
    result = train(dataset_dir, tmp_path / "out", config, init=sources, device="cpu")
    tuned = weights(result)
    for name, source in unimodal.items():
        for key, value in weights(source).items():
            if key.startswith(BRANCH.format(name)) or name == anchor:
                torch.testing.assert_close(tuned[key], value, atol=1e-6, rtol=0)
    other = next(name for name in unimodal if name != anchor)
    assert any(
        not torch.equal(tuned[key], value) for key, value in weights(unimodal[other]).items() if "roi_head" in key
    )


@pytest.mark.parametrize("fusion", ["residual_cross_attention", "stack"])
def test_fine_tuning_starts_as_exactly_the_anchors_detector(
    fusion: str, dataset_dir: Path, unimodal: dict[str, TrainResult], quick: DetectorConfig, tmp_path: Path
) -> None:
    """With everything frozen but the fusion's zero, the joint model must answer like the unimodal one."""
    needed = ("rgb",) if fusion == "stack" else ("rgb", "relative_elevation")
    sources = {name: unimodal[name].checkpoint for name in needed}
    config = replace(quick, iterations=1, learning_rate=1e-30, fusion=fusion)
    joint = load(train(dataset_dir, tmp_path / "out", config, init=sources, device="cpu").checkpoint, "cpu")
    alone = load(unimodal["rgb"].checkpoint, "cpu")
    dataset = read_dataset(dataset_dir)
    chips = [read_tile(dataset, joint.modalities, tile) for tile in dataset.tiles("train")[:3]]
    for a, b in zip(joint.predict(chips), alone.predict(chips), strict=True):
        # the joint embedding counts pixels where any modality is valid: here all of them, in both
        torch.testing.assert_close(torch.from_numpy(a.embedding), torch.from_numpy(b.embedding), atol=1e-4, rtol=1e-3)
        assert [d.score for d in a.detections] == pytest.approx([d.score for d in b.detections], abs=1e-4)


def test_frozen_parts_do_not_move(
    dataset_dir: Path, trained: TrainResult, quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=1, freeze=("rgb", "roi_head"), warmup=0)
    tuned = weights(train(dataset_dir, tmp_path / "out", config, init=trained.checkpoint, device="cpu"))
    earlier = weights(trained)
    moved = {name for name in earlier if not torch.equal(earlier[name], tuned[name])}
    assert moved
    assert not any(name.startswith((BRANCH.format("rgb"), "roi_head.")) for name in moved)
    assert any(name.startswith(BRANCH.format("relative_elevation")) for name in moved)
    assert any(name.startswith("neck.") for name in moved)


def test_starts_that_do_not_fit_are_refused(
    dataset_dir: Path,
    unimodal: dict[str, TrainResult],
    trained: TrainResult,
    quick: DetectorConfig,
    tmp_path: Path,
) -> None:
    rgb, dem = (unimodal[name].checkpoint for name in ("rgb", "relative_elevation"))
    one_backbone = replace(quick, iterations=1, fusion="stack")
    stacked = train(dataset_dir, tmp_path / "stacked", one_backbone, init={"rgb": rgb}, device="cpu").checkpoint
    cases = [
        (quick, rgb, "is a checkpoint for the modalities rgb, not rgb, relative_elevation"),
        (replace(quick, fusion="stack"), trained.checkpoint, "was trained with fusion = 'residual_cross_attention'"),
        (replace(quick, anchor="relative_elevation"), trained.checkpoint, "was trained with anchor = 'rgb'"),
        (replace(quick, size="tiny"), trained.checkpoint, "was trained with size = 'nano'"),
        (replace(quick, size="tiny"), {"rgb": rgb}, "is of size 'nano', but 'tiny'"),
        (quick, {"relative_elevation": dem}, "no checkpoint of 'rgb' is given"),
        (quick, {"rgb": dem}, "is a checkpoint for the modalities relative_elevation, not for 'rgb'"),
        (quick, {"rgb": stacked}, "has one backbone for all modalities"),
        (quick, {"rgb": trained.checkpoint}, "knows 'relative_elevation', too, whose backbone would begin anew"),
        (replace(quick, fusion="stack"), {"rgb": rgb, "relative_elevation": dem}, "begins as that of 'rgb': leave it"),
        (quick, {"rgb": rgb, "ndvi": dem}, "given for modality 'ndvi', but the training uses"),
        (quick, tmp_path / "nowhere", r"model\.json is missing"),
    ]
    for config, init, message in cases:
        with pytest.raises(CheckpointError, match=message):
            train(dataset_dir, tmp_path / "out", config, init=init, device="cpu")
    assert not (tmp_path / "out").exists(), "refused before anything is written"


def test_a_modality_is_added_to_a_multimodal_model(
    own_dataset_dir: Path, trained: TrainResult, quick: DetectorConfig, tmp_path: Path
) -> None:
    add_modality(own_dataset_dir, "slope", like="relative_elevation")
    sources = dict.fromkeys(("rgb", "relative_elevation"), trained.checkpoint)
    config = replace(quick, iterations=1, learning_rate=1e-30, modality_dropout=0.0)
    grown = train(own_dataset_dir, tmp_path / "out", config, init=sources, device="cpu")
    earlier, now = weights(trained), weights(grown)
    kept = [name for name in earlier if not name.startswith("backbone.fusion.")]
    assert all(torch.equal(earlier[name], now[name]) for name in kept)
    assert any(name.startswith(BRANCH.format("slope")) for name in now)
    assert not now["backbone.fusion.0.project.weight"].abs().max() > 1e-20, "the fusion begins anew"
    scaled = {m.name: (m.mean, m.std) for m in load(grown.checkpoint, "cpu").modalities}
    for modality in load(trained.checkpoint, "cpu").modalities:
        assert scaled[modality.name] == (modality.mean, modality.std), "normalisation comes with the weights"


def add_modality(root: Path, name: str, like: str) -> None:
    """Declare another modality, with the pixels of one that is there."""
    file = root / "dataset.json"
    data = json.loads(file.read_text())
    (model,) = (m for m in data["modalities"] if m["name"] == like)
    data["modalities"].append({**model, "name": name, "bands": [name]})
    file.write_text(json.dumps(data))
    shutil.copytree(root / "chips" / like, root / "chips" / name)


def test_sources_are_checked_before_the_pretraining(
    dataset_dir: Path, unimodal: dict[str, TrainResult], quick: DetectorConfig, tmp_path: Path
) -> None:
    wrong = {"relative_elevation": unimodal["rgb"].checkpoint}
    with pytest.raises(CheckpointError, match="not for 'relative_elevation'"):
        train_in_stages(dataset_dir, tmp_path / "out", quick, sources=wrong, device="cpu")
    assert not (tmp_path / "out").exists()


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
    with pytest.raises(ConfigError, match=rf"^The configuration (value|key) '?{key}.*: .+\.$") as refused:
        DetectorConfig.from_json(settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"modalities": "rgb"}, "modalities = 'rgb' makes no sense: give a list of names."),
        ({"iterations": "10"}, "iterations = '10' makes no sense: give a whole number."),
        ({"learning_rate": "fast"}, "give a finite number"),
        ({"image_size": "64"}, "give a whole number or null"),
        ({"activation_checkpointing": "no"}, "give true or false"),
        ({"slow": "rgb"}, 'give a factor per part, as {"rgb": 0.1}'),
        ([1], "[1]: give a JSON object of settings"),
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
