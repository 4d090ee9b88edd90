"""`manage.py demo`, small but whole: real servers, workers, Label Studio, annotators, training, and a second run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyogrio
import pytest

from demo.generated import CAMPAIGN_FILE
from demo.scenes import SceneSize, generate

REPOSITORY = Path(__file__).resolve().parents[2]
ROUND = {"round", "labels", "ap50", "ap30", "correction_iou", "acquired", "random", "seconds"}

pytestmark = pytest.mark.labelstudio


@pytest.fixture(scope="module")
def campaign_file(tmp_path_factory) -> Path:
    """24 tiles of 64 pixels, two iterations a round."""
    folder = tmp_path_factory.mktemp("small")
    generate(folder, SceneSize(columns=6, rows=4, tile_size=64), seed=5)
    text = CAMPAIGN_FILE.read_text()
    for pattern, replacement in (
        ('name = "demo', 'name = "small'),
        ("tile_size = [0-9]+", "tile_size = 64"),
        ("block_tiles = [0-9]+", "block_tiles = 1"),
        ("\niterations = [0-9]+", "\niterations = 2"),
        ("\ninitial_batch_size = [0-9]+", "\ninitial_batch_size = 5"),
        ("\nbatch_size = [0-9]+", "\nbatch_size = 4"),
        ("min_new_tiles = [0-9]+", "min_new_tiles = 4"),
        ("rounds = [0-9]+", "rounds = 2\nskip = 0"),
    ):
        text, found = re.subn(pattern, replacement, text)
        assert found
    (folder / "small.toml").write_text(text)
    return folder / "small.toml"


def run_demo(file: Path, root: Path, labelstudio, *arguments: str) -> subprocess.CompletedProcess[str]:
    taken = ("DATABASE_URL", "REDIS_URL", "THAWLOOP_VAR", "THAWLOOP_DATA_ROOTS", "DJANGO_SETTINGS_MODULE")
    environment = {name: value for name, value in os.environ.items() if name not in taken}
    environment |= {"LABEL_STUDIO_URL": labelstudio.url, "LABEL_STUDIO_TOKEN": labelstudio.token}
    command = ["manage.py", "demo", "--campaign", str(file), "--root", str(root), "--headless", *arguments]
    return subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


def test_the_loop_runs_from_rasters_to_a_better_informed_model(campaign_file, tmp_path, labelstudio):
    done = run_demo(campaign_file, tmp_path, labelstudio)
    assert done.returncode == 0, done.stderr[-3000:]

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary) == {"seconds", "rounds", "release", "model_version", "urls"}
    assert [set(row) for row in summary["rounds"]] == [ROUND, ROUND]
    first, second = summary["rounds"]
    assert (first["acquired"] + first["random"], second["acquired"] + second["random"]) == (5, 4)
    assert first["random"] == second["random"] == 1
    assert first["correction_iou"] is None
    assert 0 <= second["correction_iou"] <= 1
    assert second["labels"] >= first["labels"] >= 1
    assert first["ap50"] is not None
    assert summary["model_version"].startswith("small-v")
    assert (Path(summary["release"]) / "manifest.json").exists()
    assert "AP50" in done.stdout

    (exported,) = (tmp_path / "exports").glob("small-*.gpkg")
    layers = {name: pyogrio.read_info(exported, layer=name)["features"] for name in pyogrio.list_layers(exported)[:, 0]}
    assert max(layers.values()) >= second["labels"]

    again = run_demo(campaign_file, tmp_path, labelstudio, "--rounds", "0", "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads(again.stdout)["rounds"] == summary["rounds"]


def test_a_file_without_annotators_is_refused_before_anything_starts(campaign_file, tmp_path, labelstudio):
    silent = campaign_file.with_name("silent.toml")
    silent.write_text(campaign_file.read_text().replace('role = "simulate"', 'role = "truth"\nsplits = ["val"]'))
    done = run_demo(silent, tmp_path / "never", labelstudio)
    assert done.returncode == 1
    assert "play the annotators" in done.stderr
    assert not (tmp_path / "never").exists()
