"""What a training must not lose or publish: other trainings' work, earlier results, weights that are no numbers."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ml_backend.detector import (
    CannotResumeError,
    ConfigError,
    DatasetError,
    DetectorConfig,
    DetectorError,
    TrainingDivergedError,
    TrainingStoppedError,
    TrainResult,
    open_checkpoint,
    train,
)
from ml_backend.detector.lock import lock_folder
from ml_backend.detector.training.loop import Training
from ml_backend.detector.training.runfolder import RunFolder
from tests.detector.files import edit_json

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import multiprocessing, os, sys, time
from pathlib import Path
from ml_backend.detector.lock import lock_folder
def live():
    print(os.getpid(), flush=True)  # it has begun, and so let go of the lock
    time.sleep(60)
with lock_folder(Path(sys.argv[1]), "held"):
    multiprocessing.get_context("fork").Process(target=live).start()
    time.sleep(60)
"""


@pytest.fixture
def stopped(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> Path:
    """The folder of a training that was stopped after its first step."""
    with pytest.raises(TrainingStoppedError):
        train(dataset_dir, tmp_path / "out", quick, device="cpu", should_stop=lambda: True)
    return tmp_path / "out"


@pytest.mark.parametrize("resume", [True, False])
def test_a_second_training_in_a_folder_is_refused_while_the_first_runs(
    resume: bool, dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    refusals: list[str] = []

    def meanwhile() -> bool:
        with pytest.raises(ConfigError) as refusal:
            train(dataset_dir, tmp_path / "out", quick, device="cpu", resume=resume)
        refusals.append(str(refusal.value))
        return False

    first = train(dataset_dir, tmp_path / "out", quick, device="cpu", should_stop=meanwhile)
    assert first.iterations == 2
    assert set(refusals) == {
        f"Another process is training in {tmp_path / 'out'}: wait for it or give another output folder."
    }
    assert train(dataset_dir, tmp_path / "out", quick, device="cpu") == first


def test_a_killed_training_does_not_leave_its_folder_locked(tmp_path: Path) -> None:
    """Not even for the time that its forked workers live on."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        worker = int(first.stdout.readline())
        try:
            with pytest.raises(ConfigError, match="busy"), lock_folder(tmp_path, "busy"):
                pytest.fail("both held the folder")
            first.send_signal(signal.SIGKILL)
            assert first.wait() == -signal.SIGKILL
            os.kill(worker, 0)  # it lives
            with lock_folder(tmp_path, "still locked"):
                pass
        finally:
            os.kill(worker, signal.SIGKILL)


def test_the_end_of_a_fork_does_not_free_the_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "held"):
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
        with pytest.raises(ConfigError, match="held"), lock_folder(tmp_path, "held"):
            pytest.fail("both held the folder")


def test_a_finished_training_is_not_discarded_for_one_that_cannot_begin(
    own_dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    first = train(own_dataset_dir, tmp_path / "out", quick, device="cpu")
    before = open_checkpoint(first.checkpoint).card
    (own_dataset_dir / "chips/rgb/train_0001.tif").write_bytes(b"broken")
    with pytest.raises(DatasetError, match="cannot be read"):
        train(own_dataset_dir, tmp_path / "out", quick, device="cpu", resume=False)
    assert open_checkpoint(first.checkpoint).card == before


def test_tiles_smaller_than_the_smallest_window_are_evaluated(
    generate: Callable[..., Path], quick: DetectorConfig, tmp_path: Path
) -> None:
    data = generate(tmp_path / "data", train=3, val=2, test=2, size=24, missing=0)
    result = train(data, tmp_path / "out", replace(quick, iterations=1), device="cpu")
    assert result.metrics["n_tiles"] == 2


def spoil_weights_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let a step with a finite loss end with a weight that is no number."""
    real = Training._step

    def spoilt(self: Any, batch: Any) -> float:
        loss = real(self, batch)
        if self.step + 1 == step:
            with torch.no_grad():
                next(self.model.parameters()).view(-1)[0] = torch.nan
        return loss

    monkeypatch.setattr(Training, "_step", spoilt)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.5}])
def test_weights_that_are_no_numbers_are_neither_saved_nor_published(
    settings: dict[str, Any],
    dataset_dir: Path,
    quick: DetectorConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil_weights_after(monkeypatch, 2)
    with pytest.raises(TrainingDivergedError, match=r"A weight stopped being a number at step 2 of 2.*\(step 1\)"):
        train(dataset_dir, tmp_path / "out", replace(quick, **settings), device="cpu")
    kept = open_checkpoint(tmp_path / "out/checkpoint")
    assert kept.card["iterations"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept.weights().values())
    state = RunFolder(tmp_path / "out").load_state()
    assert state is not None
    assert state["step"] == 1


def test_divergence_publishes_the_best_weights_found_so_far(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(quick, iterations=3, eval_interval=1)
    found = [{"ap50": 0.5}, {"ap50": 0.1}]
    monkeypatch.setattr(Training, "_evaluate", lambda self: found.pop(0))
    spoil_weights_after(monkeypatch, 3)
    with pytest.raises(TrainingDivergedError, match=r"the best checkpoint so far \(step 1\) is"):
        train(dataset_dir, tmp_path / "out", config, device="cpu")
    kept, state = open_checkpoint(tmp_path / "out/checkpoint"), RunFolder(tmp_path / "out").load_state()
    assert (kept.card["iterations"], kept.card["metrics"]) == (1, {"ap50": 0.5})
    assert state is not None
    assert state["step"] == 2
    weights = kept.weights()
    assert all(torch.equal(weights[name], tensor) for name, tensor in state["selection"]["weights"].items())


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"garbage" * 99, flip_a_bit],
    ids=["empty", "truncated", "garbage", "a bit"],
)
def test_a_damaged_resume_state_is_refused_in_one_sentence(
    damage: Callable[[bytes], bytes], dataset_dir: Path, quick: DetectorConfig, stopped: Path
) -> None:
    state = stopped / "state.pth"
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(CannotResumeError, match=r"state\.pth is damaged: start again with .*--no-resume"):
        train(dataset_dir, stopped, quick, device="cpu")


def test_a_folder_that_does_not_say_what_it_holds_is_refused(
    dataset_dir: Path, quick: DetectorConfig, stopped: Path
) -> None:
    (stopped / "run.json").unlink()
    with pytest.raises(CannotResumeError, match=r"run\.json is missing: start again"):
        train(dataset_dir, stopped, quick, device="cpu")
    (stopped / "run.json").write_bytes(b"\xff")
    with pytest.raises(CannotResumeError, match="holds a training with another configuration"):
        train(dataset_dir, stopped, quick, device="cpu")


def test_a_state_of_another_version_is_refused_in_one_sentence(
    stopped: Path, dataset_dir: Path, quick: DetectorConfig
) -> None:
    state = torch.load(stopped / "state.pth", weights_only=True)
    spoilt = (
        {key: value for key, value in state.items() if key != "seconds"},
        {**state, "model": {name: tensor[:1] for name, tensor in state["model"].items()}},
    )
    for other in spoilt:
        torch.save(other, stopped / "state.pth")
        with pytest.raises(CannotResumeError, match=r"state\.pth was written by another version: start again"):
            train(dataset_dir, stopped, quick, device="cpu")


def test_a_damaged_result_is_refused_and_can_be_discarded(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    first = train(dataset_dir, tmp_path / "out", quick, device="cpu")
    for text in ("", "[]", json.dumps({"metrics": {}}), "\xff"):
        (tmp_path / "out/result.json").write_text(text, encoding="latin-1")
        with pytest.raises(CannotResumeError, match=r"result\.json is damaged: start again"):
            train(dataset_dir, tmp_path / "out", quick, device="cpu")
    again = train(dataset_dir, tmp_path / "out", quick, device="cpu", resume=False)
    assert again.iterations == first.iterations


@pytest.mark.parametrize("trouble", ["weights", "published", "freeze", "architecture"])
def test_beginning_anew_discards_nothing_for_a_training_that_cannot_begin(
    trouble: str, dataset_dir: Path, trained: TrainResult, quick: DetectorConfig, tmp_path: Path
) -> None:
    done = train(dataset_dir, tmp_path / "out", quick, device="cpu")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    source, config, init = tmp_path / "source", quick, None
    shutil.copytree(trained.checkpoint, source)
    if trouble == "weights":
        with (source / "model.safetensors").open("r+b") as stream:
            stream.truncate(1000)
        init = source
    elif trouble == "architecture":
        edit_json(source / "model.json", lambda card: card.update(architecture=1))
        init = source
    elif trouble == "published":
        config = replace(quick, pretrained=str(tmp_path / "nowhere.pth"))
    else:
        config = replace(quick, fusion="stack", freeze=("rgb",))
    with pytest.raises(DetectorError, match=r"truncated|nowhere\.pth|cannot be frozen|is of version 1 of the network"):
        train(dataset_dir, tmp_path / "out", config, init=init, device="cpu", resume=False)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
    assert train(dataset_dir, tmp_path / "out", quick, device="cpu") == done
