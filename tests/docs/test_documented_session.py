"""Every command of ours in the documentation, carried out as a process, in the order in which one comes to it: those of
the platform against all that `manage.py serve` starts."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo.generated import CAMPAIGN_FILE
from demo.scenes import SceneSize, generate
from tests.docs.test_documented_commands import DETECTOR, MANAGE, REPOSITORY, arguments

pytestmark = [pytest.mark.slow, pytest.mark.labelstudio]

WITHOUT = ("DATABASE_URL", "REDIS_URL", "THAWLOOP_VAR", "DJANGO_SETTINGS_MODULE", "THAWLOOP_ENV_FILE")
CAMPAIGN = """
[grid]
name = "banks-3m"
srid = 3413
pixel_size = 3
tile_size = 64

[period]
label = "2024"
start = 2024-06-01
end = 2024-09-30

[[regions]]
name = "banks-east"
footprint_of = "rgb"
split = {fractions = {train = 0.5, val = 0.2, test = 0.3}, block_tiles = 1, seed = 0}

[[labels]]
files = "truth.geojson"
role = "truth"
splits = ["val"]

[detector]
size = "nano"
iterations = 2
pretrain_iterations = 0

[acquisition]
initial_batch_size = 4
"""
# As the documentation writes them, in an order that works; `-` begins one of our own that makes the next one possible,
# `!` what happens to Label Studio in between.
STORY = """
create_campaign banks.toml
acquire --campaign banks
acquire --campaign C
import_labels FILES… --campaign C --coverage regions --split test
- import_labels FILES --campaign C --coverage regions --split train
sync --campaign C
retrain --campaign C --dry-run
retrain --campaign C
- retrain --campaign C
promote VERSION --reason WHY
- promote banks-v2 --reason WHY
rollback --campaign C --reason WHY
predict --campaign C
release --campaign C
export RELEASE --format gpkg --out FILE
export banks/1.0.0 --format gpkg --out banks.gpkg
export banks/1.0.0 --format geojson --out banks.geojson
export banks/1.0.0 --format tiles --out tiles.geojson
export banks/1.0.0 --format coco --out banks.zip
export banks/1.0.0 --format dataset --out banks
withdraw_import 3 --reason TEXT
sync --campaign C --accept-removals N
! lose the project
sync --campaign C --new-project
make_token NAME --days 30 --scope read
rotate_secrets --reason "..."
reconcile
reconciler
worker --queue default
create_campaign FILE.toml
dataset CAMPAIGN.toml --out DIR
dataset FILE.toml --out DIR2
generate_dataset --out DIR3
"""
MEANT = {
    "C": "banks",
    "FILES": "truth.geojson",
    "VERSION": "banks-v1",
    "RELEASE": "banks/1.0.0",
    "WHY": "better",
    "N": "1",
}
MEANT |= {"TEXT": "wrong year", "NAME": "admin", "FILE": "again.gpkg", "FILE.toml": "other.toml"}
FOLDERS = {"DIR": "one", "DIR2": "two", "DIR3": "three"}
GO_ON = {"reconciler", "worker"}
"""Those that run until they are told to end."""
REAL = {"dataset examples/crowns.toml --out crowns", "dataset examples/glacier.toml --out glacier"}
"""Of real scenes, which not everybody has."""
# The same for the detector; what stands behind `+` makes it short.
DETECTOR_STORY = """
check DIR
check DIR --repair OUT
import-dataset SOURCE --out DIR2
stages --help
stages   --dataset DIR --out runs/a + --iterations 1 --pretrain-iterations 1
evaluate --dataset DIR --checkpoint runs/a/finetune/checkpoint
train --dataset crowns --out crowns-detector + --iterations 1
predict --checkpoint C --chip rgb=a.tif --chip dem=b.tif --gpkg out.gpkg
compare  --dataset DIR --out runs/table + --iterations 1 --pretrain-iterations 1 --fusions conv --seeds 0
compare --dataset DIR --out runs/table --seeds 0 1 2 --jobs 2 + --iterations 1 --pretrain-iterations 1 --fusions conv
"""


def manage(folder: Path, *words: str, **environment: str) -> "subprocess.Popen[str]":
    inherited = {name: value for name, value in os.environ.items() if name not in WITHOUT}
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "manage.py"), *words],
        cwd=folder,
        env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Generated scenes and two campaign files beside them, the second of another campaign."""
    generate(tmp_path, SceneSize(columns=6, rows=4, tile_size=64), seed=5)
    modalities = re.findall(r"\[\[modalities\]\]\n(?:.+\n)+", CAMPAIGN_FILE.read_text())
    for name, tile_size in (("banks", 64), ("other", 32)):  # on one grid they would share cells
        head = f'[campaign]\nname = "{name}"\ntitle = "Banks Island"\nclasses = ["RTS"]\n'
        text = "\n".join([head, CAMPAIGN, *modalities]).replace("banks-", f"{name}-")
        (tmp_path / f"{name}.toml").write_text(text.replace("tile_size = 64", f"tile_size = {tile_size}"))
    labelled = (tmp_path / "other.toml").read_text().replace('splits = ["val"]\n', "")
    (tmp_path / "other.toml").write_text(labelled)
    (tmp_path / "CAMPAIGN.toml").write_text(labelled)
    return tmp_path


@pytest.fixture
def environment(folder: Path, labelstudio) -> Iterator[dict[str, str]]:
    """How commands find the servers of a `serve` of this test's own."""
    named = {"LABEL_STUDIO_URL": labelstudio.url, "LABEL_STUDIO_TOKEN": labelstudio.token}
    root = folder / "serve"
    serve = manage(folder, "serve", "--root", str(root), THAWLOOP_DATA_ROOTS=str(folder), **named)
    assert serve.stdout
    while "Label Studio  http" not in (line := serve.stdout.readline()):
        assert line, serve.stderr and serve.stderr.read()
    yield {"THAWLOOP_ENV_FILE": str(root / "environment")}
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(120) == 0


def carried_out(folder: Path, words: list[str], environment: dict[str, str]) -> str:
    """What a command prints; it must end well, without a traceback."""
    process = manage(folder, *words, **environment)
    if words[0] in GO_ON:
        time.sleep(20)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, (words, output, errors[-3000:])
    assert "Traceback" not in errors, (words, errors[-3000:])
    return output


def lose_the_project(labelstudio) -> None:
    """Delete the campaign's project in Label Studio."""
    headers = {"Authorization": f"Token {labelstudio.token}"}
    with httpx.Client(base_url=labelstudio.url, headers=headers, timeout=60) as client:
        (project,) = (row for row in client.get("/api/projects/").json()["results"] if "Banks Island" in row["title"])
        assert client.delete(f"/api/projects/{project['id']}/").status_code == 204


def test_every_documented_management_command_does_its_work(
    folder: Path, environment: dict[str, str], labelstudio
) -> None:
    done = set()
    for line in STORY.strip().splitlines():
        if line.startswith("!"):
            lose_the_project(labelstudio)
            continue
        text = line.removeprefix("- ")
        words = [(MEANT | FOLDERS).get(word, word) for word in arguments(text)]
        apart = {"THAWLOOP_ENV_FILE": os.devnull, "THAWLOOP_VAR": str(folder / "var")}  # a database of its own
        carried_out(folder, words, apart if words[0].endswith("dataset") else environment)
        done.add(re.sub(r"\bDIR\d", "DIR", text))
    for name in ("again.gpkg", "banks.gpkg", "banks.geojson", "tiles.geojson", "banks.zip", "banks/dataset.json"):
        assert (folder / name).stat().st_size > 0
    documented = {text for _, text in MANAGE if len(shlex.split(text)) > 1}
    assert documented - done - REAL == set()


def test_every_documented_command_of_the_detector_does_its_work(tmp_path: Path) -> None:
    size = ["--train", "4", "--val", "2", "--test", "2"]
    carried_out(tmp_path, ["generate_dataset", "--out", "data", *size], {})
    (tmp_path / "crowns").symlink_to("data")
    shutil.copytree(tmp_path / "data/annotations", tmp_path / "labelled")
    shutil.copytree(tmp_path / "data/chips/rgb", tmp_path / "labelled/images")
    chip = next((tmp_path / "data/chips/rgb").iterdir()).name
    for name, modality in (("a.tif", "rgb"), ("b.tif", "relative_elevation")):
        shutil.copy(tmp_path / "data/chips" / modality / chip, tmp_path / name)
    meant = {
        "DIR": "data",
        "OUT": "mended",
        "SOURCE": "labelled",
        "DIR2": "imported",
        "C": "runs/a/finetune/checkpoint",
    }
    done = set()
    for line in DETECTOR_STORY.strip().splitlines():
        text, _, short = line.partition(" + ")
        words = [meant.get(word, word).replace("dem=", "relative_elevation=") for word in arguments(text)]
        words += arguments(short)
        ended = subprocess.run(
            [sys.executable, "-m", "ml_backend.detector", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, (words, ended.stdout[-3000:], ended.stderr[-3000:])
        assert "Traceback" not in ended.stderr, (words, ended.stderr[-3000:])
        done.add(text.replace("DIR2", "DIR"))
    for name in ("out.gpkg", "runs/table/comparison.md", "crowns-detector/checkpoint/model.json"):
        assert (tmp_path / name).stat().st_size > 0
    documented = {text for _, text in DETECTOR if len(shlex.split(text)) > 1 and "..." not in text}
    assert documented - done == set()


@pytest.mark.parametrize("text", sorted(REAL))
def test_the_examples_datasets_are_made(text: str, tmp_path: Path, real_data: Path) -> None:
    words = [str(REPOSITORY / word) if word.endswith(".toml") else word for word in arguments(text)]
    carried_out(tmp_path, words, {"THAWLOOP_REAL_DATA": str(real_data), "THAWLOOP_VAR": str(tmp_path / "var")})
    assert list((tmp_path / words[-1] / "annotations").glob("*.json"))
