"""One training on several processes, as `torchrun` starts them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ml_backend.detector import DetectorConfig, inspect, open_checkpoint, train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]


STOP_IN_SECOND = """
import functools, os, sys
from ml_backend.detector import training
from ml_backend.detector.commands import main
training.train = functools.partial(training.train, should_stop=lambda: os.environ["RANK"] == "1")
sys.exit(main())
"""
SPOIL_IN_SECOND = """
import os, sys
from ml_backend.detector.commands import main
from ml_backend.detector.data import batches
from ml_backend.detector.errors import DatasetError
read = batches.read_tile
def spoilt(*arguments):
    if os.environ["RANK"] == "1":
        raise DatasetError("The chip went bad.")
    return read(*arguments)
batches.read_tile = spoilt
sys.exit(main())
"""
REFUSE_IN_SECOND = """
import os, sys
from ml_backend.detector.commands import main
from ml_backend.detector.errors import CheckpointError
from ml_backend.detector.training.setup import TrainingSetup
begin = TrainingSetup.load_initial_weights
def refuse(*arguments):
    if os.environ["RANK"] == "1":
        raise CheckpointError("The weights went bad.")
    return begin(*arguments)
TrainingSetup.load_initial_weights = refuse
sys.exit(main())
"""
DETECTOR = ("-m", "ml_backend.detector")


def torchrun(*program: str) -> subprocess.CompletedProcess[str]:
    """Run a program on two processes of this CPU."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, *program],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )


def command(name: str, dataset_dir: Path, out: Path, config: DetectorConfig) -> list[str]:
    """The command line of a training with these settings."""
    settings = out.with_suffix(".json")
    settings.write_text(json.dumps(config.to_json()))
    options = ["--dataset", str(dataset_dir), "--out", str(out), "--config", str(settings)]
    return [name, *options, "--device", "cpu", "--json"]


def test_two_processes_do_what_one_does_in_two_passes(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    """The same tiles per step, shared by processes or one after the other, give the same weights; also in pieces."""
    config = replace(quick, batch_size=2, ema=0.5, eval_interval=1)
    script = tmp_path / "stop.py"
    script.write_text(STOP_IN_SECOND)
    stopped = torchrun(str(script), *command("train", dataset_dir, tmp_path / "two", config))
    assert stopped.stderr.count("error: Training stopped as asked at step 1 of 2") == 1, "all agree, one tells"
    done = torchrun(*DETECTOR, *command("train", dataset_dir, tmp_path / "two", config))
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["iterations"] == 2
    assert inspect(printed["checkpoint"])["training"]["processes"] == 2
    alone = train(dataset_dir, tmp_path / "one", replace(config, batch_size=1, accumulate=2), device="cpu")
    a, b = open_checkpoint(printed["checkpoint"]).weights(), open_checkpoint(alone.checkpoint).weights()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_wrong_is_said_once(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    refused = torchrun(*DETECTOR, *command("train", dataset_dir, tmp_path / "out", replace(quick, batch_size=3)))
    assert refused.returncode != 0
    assert refused.stderr.count("error: The 3 tiles of a step") == 1
    assert refused.stdout == ""
    assert not (tmp_path / "out").exists()


def test_a_chip_that_only_one_process_reads_ends_all(
    own_dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    """A file that goes bad after the check: the process that meets it says so, and the other does not wait."""
    script = tmp_path / "spoil.py"
    script.write_text(SPOIL_IN_SECOND)
    done = torchrun(str(script), *command("train", own_dataset_dir, tmp_path / "out", quick))
    assert done.returncode != 0
    assert done.stderr.count("error: Process 1 of 2: The chip went bad.") == 1


@pytest.mark.parametrize("options", [[], ["--no-resume"]])
def test_a_process_that_cannot_begin_ends_all(
    options: list[str], dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    """None is left waiting for the other to average gradients, and nothing earlier is lost."""
    done = train(dataset_dir, tmp_path / "out", quick, device="cpu").checkpoint
    before = (done / "model.safetensors").read_bytes()
    script = tmp_path / "refuse.py"
    script.write_text(REFUSE_IN_SECOND)
    where = tmp_path / ("out" if options else "new")
    refused = torchrun(str(script), *command("train", dataset_dir, where, quick), *options)
    assert refused.returncode != 0
    assert refused.stderr.count("error: Process 1 of 2: The weights went bad.") == 1
    assert (done / "model.safetensors").read_bytes() == before


def test_all_processes_take_the_anchor_that_the_first_measured(dataset_dir: Path, tmp_path: Path) -> None:
    arguments = ("stages", "--dataset", str(dataset_dir), "--out", str(tmp_path), "--device", "cpu")
    ended = torchrun(*DETECTOR, *arguments, "--choose-anchor", "--iterations", "1", "--batch-size", "2", "--json")
    assert ended.returncode == 0, ended.stderr
    summary = json.loads((tmp_path / "stages.json").read_text())
    assert set(summary["anchor_scores"]) == {"rgb", "relative_elevation"}
    assert summary["anchor"] == max(summary["anchor_scores"], key=summary["anchor_scores"].__getitem__)
    assert inspect(summary["checkpoint"])["anchor"] == summary["anchor"]
