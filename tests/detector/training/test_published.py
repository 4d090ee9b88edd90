"""What a training publishes, and what it has learnt it from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from ml_backend.detector import DetectorConfig, train
from ml_backend.detector.commands import command_line
from ml_backend.detector.commands.training_options import DEFAULTS, settings_of
from tests.detector.training.checkpoints import weights


def test_the_average_is_what_is_published(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    """Of two steps with a decay of 2/11 in the second, it lies 9/11 of the way from the first to the last weights."""
    last = weights(train(dataset_dir, tmp_path / "last", quick, device="cpu"))
    average = weights(train(dataset_dir, tmp_path / "average", replace(quick, ema=0.9), device="cpu"))
    moved = [name for name in last if not torch.equal(last[name], average[name])]
    assert moved, "the weights of the last step were published"
    assert all(torch.isfinite(average[name]).all() for name in moved)


def test_only_training_tiles_are_learnt_from(own_dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    before = weights(train(own_dataset_dir, tmp_path / "before", quick, device="cpu"))
    for split in ("val", "test"):
        spoil(own_dataset_dir, split)
    after = weights(train(own_dataset_dir, tmp_path / "after", quick, device="cpu"))
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def spoil(dataset: Path, split: str) -> None:
    """Other pixels and half the objects for a split's tiles."""
    file = dataset / "annotations" / f"{split}.json"
    content = json.loads(file.read_text())
    content["annotations"] = content["annotations"][::2]
    file.write_text(json.dumps(content))
    for image in content["images"]:
        for chip in (dataset / "chips").glob(f"*/{image['file_name']}"):
            with rasterio.open(chip, "r+") as raster:
                raster.write(np.full(raster.read().shape, 0.123, raster.dtypes[0]))


@pytest.mark.parametrize("setting", sorted(DEFAULTS.to_json()))
def test_every_setting_has_an_option_that_reaches_the_training(setting: str) -> None:
    given = GIVEN[setting]
    option = f"--{setting.replace('_', '-')}"
    arguments = ["train", "--dataset", "d", "--out", "o", option, *given]
    made = DetectorConfig.from_json(settings_of(command_line().parse_args(arguments)))
    assert made.to_json()[setting] != DEFAULTS.to_json()[setting]
    changed = {name for name, value in made.to_json().items() if value != DEFAULTS.to_json()[name]}
    assert changed == {setting, *(["eval_interval"] if setting == "patience" else [])}


GIVEN: dict[str, list[str]] = {
    "size": ["tiny"],
    "fusion": ["conv"],
    "modalities": ["rgb", "dem"],
    "anchor": ["dem"],
    "image_size": ["96"],
    "pretrained": ["weights.safetensors"],
    "modality_dropout": ["0.5"],
    "radiometric_jitter": ["0.5"],
    "jitter_exempt": ["dem"],
    "scale_jitter": ["0.5", "2"],
    "copy_paste": ["0.5"],
    "empty_share": ["0.9"],
    "min_instance_pixels": ["77"],
    "iterations": ["7"],
    "batch_size": ["7"],
    "accumulate": ["7"],
    "learning_rate": ["0.007"],
    "warmup": ["7"],
    "weight_decay": ["0.007"],
    "grad_clip": ["7"],
    "ema": ["0.7"],
    "eval_interval": ["7"],
    "patience": ["7", "--eval-interval", "7"],
    "save_interval": ["7"],
    "seed": ["7"],
    "freeze": ["neck"],
    "slow": ["neck=0.7"],
    "fusion_rate": ["7"],
    "precision": ["bfloat16"],
    "activation_checkpointing": [],
}
