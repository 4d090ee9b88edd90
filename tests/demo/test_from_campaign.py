"""Campaign files as dataset directories: every label is truth, nobody annotates."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from demo.from_campaign import all_truth
from demo.generated import CAMPAIGN_FILE
from demo.scenes import SceneSize, generate
from ml_backend.detector.dataset import read_dataset
from ml_backend.detector.validation import check_dataset
from thawloop.campaigns.models import Campaign
from thawloop.core.errors import Refused
from thawloop.setup.reading import parse_campaign_file

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def file(tmp_path, settings) -> Path:
    folder = tmp_path / "scenes"
    generate(folder, SceneSize(columns=6, rows=5), seed=1)
    settings.THAWLOOP_DATA_ROOTS = [str(folder)]
    path = folder / "demo.toml"
    path.write_text(CAMPAIGN_FILE.read_text())
    return path


def test_labels_that_were_held_back_are_truth_in_their_splits(file):
    spec = all_truth(parse_campaign_file(file))
    (labels,) = spec.labels
    assert labels.role == "truth"
    assert labels.splits == ("train", "val", "test")


def test_how_a_label_file_is_to_be_read_stays_as_its_file_says(file):
    text = CAMPAIGN_FILE.read_text()
    file.write_text(
        text.replace('role = "simulate"', 'role = "simulate"\nlayer = "a"\ncrs = "EPSG:3413"\nmax_area = 2')
    )
    _, labels = all_truth(parse_campaign_file(file)).labels  # two ways of reading one file
    assert (labels.role, labels.layer, labels.crs, labels.max_area) == ("truth", "a", "EPSG:3413", 2)


def test_a_file_without_labels_to_learn_from_is_refused(file):
    text = CAMPAIGN_FILE.read_text()
    file.write_text(text.replace('role = "simulate"', 'role = "simulate"\nsplits = ["val"]'))
    with pytest.raises(Refused, match=r"demo\.toml: no label file counts in the train split"):
        all_truth(parse_campaign_file(file))


@pytest.mark.django_db
def test_a_campaign_file_becomes_a_dataset_that_can_be_trained_on(file, tmp_path):
    out = StringIO()
    call_command("dataset", str(file), "--out", str(tmp_path / "data"), "--json", stdout=out)
    counts = {row.pop("split"): row for row in json.loads(out.getvalue())["splits"]}
    assert sum(row["tiles"] for row in counts.values()) == 30
    assert min(row["instances"] for row in counts.values()) > 0
    dataset = read_dataset(tmp_path / "data")
    assert dataset.classes == ("RTS",)
    check_dataset(dataset, [modality.name for modality in dataset.modalities], ("train", "val", "test"))


@pytest.mark.django_db
def test_a_campaign_that_exists_keeps_its_labels_to_itself(file, tmp_path):
    call_command("create_campaign", str(file), stdout=StringIO())
    before = Campaign.objects.get().labels.count()
    with pytest.raises(CommandError, match="Campaign demo exists in this database"):
        call_command("dataset", str(file), "--out", str(tmp_path / "data"))
    assert Campaign.objects.get().labels.count() == before
    assert not (tmp_path / "data").exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "modalities", "train_instances"),
    [("glacier", ("rgb", "nir"), 50), ("crowns", ("rgb", "canopy_height"), 350)],
)
def test_real_examples_are_datasets(name, modalities, train_instances, real_data, tmp_path, settings):
    file = EXAMPLES / f"{name}.toml"
    settings.THAWLOOP_DATA_ROOTS = [str(folder) for folder in parse_campaign_file(file).local_folders]
    out = StringIO()
    call_command("dataset", str(file), "--out", str(tmp_path / "data"), "--json", stdout=out)
    counts = {row.pop("split"): row for row in json.loads(out.getvalue())["splits"]}
    assert counts["train"]["instances"] > train_instances
    assert min(counts[split]["instances"] for split in ("val", "test")) > 20
    dataset = read_dataset(tmp_path / "data")
    assert tuple(modality.name for modality in dataset.modalities) == modalities
    check_dataset(dataset, modalities, ("train", "val", "test"))


@pytest.mark.slow
def test_without_a_database_one_is_started_and_removed(real_data, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "REDIS_URL")}
    environment |= {"TMPDIR": str(tmp_path), "THAWLOOP_ENV_FILE": os.devnull}
    command = [sys.executable, "manage.py", "dataset", "examples/glacier.toml", "--out", str(tmp_path / "data")]
    done = subprocess.run([*command, "--json"], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dataset"] == str(tmp_path / "data")
    assert read_dataset(tmp_path / "data").name == "glacier"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
