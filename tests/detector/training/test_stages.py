"""Unimodal pretraining and multimodal fine-tuning in one go."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.stages import PRETRAINING_SEEDS
from ml_backend.detector import (
    CheckpointError,
    ConfigError,
    DetectorConfig,
    StagesResult,
    TrainingStoppedError,
    TrainResult,
    inspect,
    train,
    train_in_stages,
)
from ml_backend.detector.commands import main
from ml_backend.detector.commands.training import _stages_text
from ml_backend.detector.training import plan_trainings


@pytest.fixture(scope="module")
def chain(
    dataset_dir: Path, quick: DetectorConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StagesResult, list[tuple[float, str]]]:
    """A whole chain, stopped and continued once, and the progress of both calls."""
    out = tmp_path_factory.mktemp("chain")
    config = replace(quick, iterations=1, freeze=("relative_elevation",), slow=(("rgb", 0.5),))
    told: list[tuple[float, str]] = []

    def second_stage() -> bool:
        return (out / "pretrain-rgb/result.json").is_file()

    def run(stop: bool) -> StagesResult:
        return train_in_stages(
            dataset_dir,
            out,
            config,
            pretrain=quick,
            device="cpu",
            progress=lambda share, text: told.append((share, text)),
            should_stop=second_stage if stop else None,
        )

    with pytest.raises(TrainingStoppedError, match=r"step 1 of 2.*pretrain-relative_elevation"):
        run(stop=True)
    return run(stop=False), told


def test_stages_follow_each_other(chain: tuple[StagesResult, list[tuple[float, str]]]) -> None:
    result, _ = chain
    assert list(result.stages) == ["pretrain-rgb", "pretrain-relative_elevation", "finetune"]
    assert [stage.iterations for stage in result.stages.values()] == [2, 2, 1]
    cards = {name: inspect(stage.checkpoint) for name, stage in result.stages.items()}
    assert cards["finetune"]["init"] == {
        name: cards[f"pretrain-{name}"]["weights"]["sha256"] for name in ("rgb", "relative_elevation")
    }
    assert cards["finetune"]["config"]["freeze"] == ["relative_elevation"]
    assert cards["finetune"]["config"]["slow"] == {"rgb": 0.5}
    assert cards["pretrain-rgb"]["config"]["freeze"] == []
    assert result.seconds == pytest.approx(sum(stage.seconds for stage in result.stages.values()))
    summary = json.loads((result.final.checkpoint.parents[1] / "stages.json").read_text())
    assert summary == result.to_json()
    assert summary["stages"]["pretrain-rgb"]["metrics"]["ap50"] >= 0


def test_fine_tuning_does_not_repeat_the_randomness_of_the_pretraining(
    dataset_dir: Path, quick: DetectorConfig
) -> None:
    stages = plan_trainings(dataset_dir, replace(quick, seed=3), {"rgb": replace(quick, seed=5)})
    assert [stage.config.seed for stage in stages] == [PRETRAINING_SEEDS + 5, PRETRAINING_SEEDS + 3, 3]


def test_on_a_cpu_the_memory_of_later_stages_is_not_told(
    chain: tuple[StagesResult, list[tuple[float, str]]],
) -> None:
    """It cannot be measured: the process's largest so far may be an earlier stage's."""
    result, _ = chain
    told = [stage["peak_memory_mb"] for stage in result.to_json()["stages"].values()]
    assert told[0] > 0
    assert told[1:] == [None, None]
    assert _stages_text(result).count("peak memory") == 2  # the first stage's, and that of all
    of_gpu = replace(result, own_memory=True).to_json()["stages"].values()
    assert [stage["peak_memory_mb"] for stage in of_gpu] == [s.peak_memory_mb for s in result.stages.values()]


def test_finished_stages_are_not_repeated_and_progress_is_that_of_the_whole(
    chain: tuple[StagesResult, list[tuple[float, str]]],
) -> None:
    _, told = chain
    first = [text for _, text in told if text.startswith("[1/3 pretrain-rgb]")]
    assert sum("done:" in text for text in first) == 1
    resumed = [index for index, (_, text) in enumerate(told) if "checking" in text][-2:]
    for part in (told[: resumed[0]], told[resumed[0] :]):
        shares = [share for share, _ in part]
        assert shares == sorted(shares)
    assert told[resumed[0]][0] == pytest.approx(1 / 3), "two of the six passes of tiles are behind"
    assert told[-1][0] == 1


def test_given_checkpoints_are_not_trained_again(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(quick, modalities=("rgb",), anchor="rgb", iterations=1)
    given: TrainResult = train(dataset_dir, tmp_path / "given", config, device="cpu")
    arguments = ["stages", "--dataset", str(dataset_dir), "--out", str(tmp_path / "out"), "--device", "cpu", "--json"]
    options = ["--batch-size", "2", "--iterations", "1", "--pretrain-iterations", "2", "--slow", "rgb=0.1"]
    assert main([*arguments, *options, "--from", f"rgb={given.checkpoint}"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {name: stage["iterations"] for name, stage in printed["stages"].items()} == {
        "pretrain-relative_elevation": 2,
        "finetune": 1,
    }
    card = inspect(printed["checkpoint"])
    assert card["init"]["rgb"] == inspect(given.checkpoint)["weights"]["sha256"]
    assert card["config"]["slow"] == {"rgb": 0.1}


def test_damaged_weights_are_refused_before_the_pretraining(
    dataset_dir: Path, trained: TrainResult, quick: DetectorConfig, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    shutil.copytree(trained.checkpoint, given)
    with (given / "model.safetensors").open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(CheckpointError, match=r"given/model\.safetensors is truncated or altered"):
        train_in_stages(dataset_dir, tmp_path / "out", quick, sources={"rgb": given}, device="cpu")
    assert not (tmp_path / "out").exists()


def test_only_the_anchor_is_pretrained_for_stacked_bands(dataset_dir: Path, quick: DetectorConfig) -> None:
    stages = plan_trainings(dataset_dir, replace(quick, fusion="stack"))
    assert [stage.name for stage in stages] == ["pretrain-rgb", "finetune"]


def test_each_modality_may_be_pretrained_in_its_own_way(dataset_dir: Path, quick: DetectorConfig) -> None:
    stages = plan_trainings(dataset_dir, quick, {"rgb": replace(quick, iterations=9)})
    assert [stage.config.iterations for stage in stages] == [9, 2, 2]
    assert [stage.config.modalities for stage in stages][:2] == [("rgb",), ("relative_elevation",)]


def test_one_modality_has_no_stages(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only 'rgb' is used: train it alone"):
        train_in_stages(dataset_dir, tmp_path, replace(quick, modalities=("rgb",)), device="cpu")
    with pytest.raises(ConfigError, match="Pretraining settings are given for 'ndvi'"):
        train_in_stages(dataset_dir, tmp_path, quick, pretrain={"ndvi": quick}, device="cpu")
