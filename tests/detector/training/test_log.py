"""The log of a training: every step once, whatever happened; and what TensorBoard and the report make of it."""

import math
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.detector import (
    CheckpointError,
    DetectorConfig,
    TrainingDivergedError,
    TrainingStoppedError,
    TrainResult,
    inspect,
    train,
)
from ml_backend.detector.evaluation.report.training import training_curves
from ml_backend.detector.history import read_log
from ml_backend.detector.training.log import LOSSES, TrainingLog


def events_of(folder: Path) -> Iterator[tuple[str, int, float]]:
    """(tag, step, value) of the TensorBoard events in a folder, as TensorBoard reads them."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="make install brings tensorboardX")
    for file in sorted(folder.glob("events.*")):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)
            place += length + 16


def test_every_step_is_logged_with_each_loss_by_part_and_stage(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=3, eval_interval=2, learning_rate=1e-4, warmup=2)
    result = train(dataset_dir, tmp_path / "out", config, device="cpu")
    log = read_log(tmp_path / "out")
    steps, evaluations = log["training"], log["validation"]
    assert steps["step"] == [1, 2, 3]
    for n in range(3):
        parts = [steps[name][n] for name in LOSSES]
        assert all(part >= 0 for part in parts)
        assert sum(parts) == pytest.approx(steps["loss"][n], rel=1e-4), "the parts make the whole"
    assert steps["learning_rate"][:2] == pytest.approx([5e-5, 1e-4])
    assert all(value > 0 for name in ("gradient_norm", "step_seconds", "memory_mb") for value in steps[name])
    assert steps["seconds"] == sorted(steps["seconds"])
    assert evaluations["step"] == [2, 3]
    assert max(evaluations["ap50"]) == pytest.approx(result.metrics["ap50"])
    assert read_log(result.checkpoint) == log, "the log travels with the checkpoint"
    told = {(tag, step): value for tag, step, value in events_of(tmp_path / "out/log")}
    for n in range(3):
        assert told["loss/s1.loss_mask", n + 1] == pytest.approx(steps["s1.loss_mask"][n])
    assert [step for tag, step in told if tag == "validation/ap50"] == [2, 3]


def test_a_stopped_training_goes_on_in_its_log_without_gaps_or_doubled_steps(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    """Its process had got further than its last saved state, and was killed while it wrote a row."""
    config = replace(quick, iterations=4, save_interval=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(dataset_dir, whole, config, device="cpu")
    steps = iter([False, True])
    with pytest.raises(TrainingStoppedError):
        train(dataset_dir, parts, config, device="cpu", should_stop=lambda: next(steps))
    with (parts / "log/training.csv").open("a") as stream:
        stream.write((parts / "log/training.csv").read_text().splitlines()[-1].replace("2", "3", 1) + "\n4,2026-")
    train(dataset_dir, parts, config, device="cpu")
    logs = [read_log(folder)["training"] for folder in (whole, parts)]
    for name in ("step", "loss", "gradient_norm", *LOSSES):
        assert logs[0][name] == logs[1][name]
    told = [(tag, step) for tag, step, _ in events_of(parts / "log") if tag == "loss/loss"]
    assert told == [("loss/loss", step) for step in (1, 2, 3, 4)]


def test_the_last_step_of_a_diverging_training_is_logged(
    own_dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=30, learning_rate=1e18, warmup=0, grad_clip=1e30)
    with pytest.raises(TrainingDivergedError):
        train(own_dataset_dir, tmp_path / "out", config, device="cpu")
    steps = read_log(tmp_path / "out/checkpoint")["training"]
    assert math.isfinite(steps["loss"][0])
    assert not (math.isfinite(steps["loss"][-1]) and math.isfinite(steps["gradient_norm"][-1]))


def test_a_discarded_training_leaves_no_rows(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    train(dataset_dir, tmp_path / "out", quick, device="cpu")
    train(dataset_dir, tmp_path / "out", replace(quick, iterations=1), device="cpu", resume=False)
    assert read_log(tmp_path / "out")["training"]["step"] == [1]


def test_an_evaluation_that_is_repeated_after_a_kill_is_logged_once(tmp_path: Path) -> None:
    for _ in range(2):
        log = TrainingLog(tmp_path, step=7)
        log.add("validation", 7, ap50=0.5, ece=None)
        log.close()
    assert read_log(tmp_path)["validation"]["step"] == [7]
    assert math.isnan(read_log(tmp_path)["validation"]["ece"][0])


@pytest.mark.parametrize(
    "text", ["step,loss\n1,a lot\n", "step,loss\n2,1\n1,1\n", "loss\n1\n", "\x00\x01\n\x02\n", "step\n\n,\n"]
)
def test_a_damaged_log_is_refused_by_the_report_and_mended_by_the_training(text: str, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/training.csv").write_text(text)
    with pytest.raises(CheckpointError, match=r"training\.csv is not a valid training log: remove it"):
        read_log(tmp_path)
    log = TrainingLog(tmp_path, step=5)
    log.add("training", 6, loss=1.0)
    log.close()
    assert read_log(tmp_path)["training"]["step"][-1] == 6


def test_the_report_draws_the_training(trained: TrainResult, tmp_path: Path) -> None:
    titles = [plot.title for plot in training_curves(read_log(trained.checkpoint))]
    assert titles == [
        "Loss",
        "Class losses",
        "Box losses",
        "Mask losses",
        "Learning rate and gradient",
        "Validation during training",
    ]
    bare = shutil.copytree(trained.checkpoint, tmp_path / "bare")
    shutil.rmtree(bare / "log")
    assert training_curves(read_log(bare)) == []
    assert inspect(bare) == inspect(trained.checkpoint)
