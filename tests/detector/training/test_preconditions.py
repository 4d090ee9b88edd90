"""What a training has to learn from and to be judged by is seen before it starts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_backend.detector import ConfigError, DatasetError, DetectorConfig, train, train_in_stages
from tests.detector.files import edit_json


@pytest.mark.parametrize("change", [{"annotations": []}, {"annotations": [], "images": []}])
def test_weights_are_not_chosen_by_a_validation_split_without_objects(
    change: dict[str, Any], own_dataset_dir: Path, tmp_path: Path
) -> None:
    edit_json(own_dataset_dir / "annotations/val.json", lambda d: d.update(change))
    config = DetectorConfig(iterations=2, batch_size=2, eval_interval=1)
    with pytest.raises(DatasetError, match=r"val\.json holds no objects on tiles with rgb or .*, so evaluations"):
        train(own_dataset_dir, tmp_path / "out", config, device="cpu")


@pytest.mark.parametrize("settings", [{"min_instance_pixels": 4096}, {"image_size": 32, "min_instance_pixels": 600}])
def test_objects_that_are_all_too_small_to_be_learnt_are_refused(
    settings: dict[str, Any], own_dataset_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"train\.json: no object covers \d+ pixels \(min_instance_pixels\)"):
        train(own_dataset_dir, tmp_path / "out", DetectorConfig(iterations=1, **settings), device="cpu")


def test_a_test_split_that_shares_tiles_is_refused_before_training(own_dataset_dir: Path, tmp_path: Path) -> None:
    """Its measurements would mean nothing, and that is known before the time is spent."""
    train_file = own_dataset_dir / "annotations/train.json"
    (own_dataset_dir / "annotations/test.json").write_bytes(train_file.read_bytes())
    with pytest.raises(DatasetError, match=r"test\.json: tile .* is in .*train\.json, too"):
        train(own_dataset_dir, tmp_path / "out", DetectorConfig(iterations=1), device="cpu")


def test_objects_that_are_too_small_to_be_learnt_still_judge(own_dataset_dir: Path, tmp_path: Path) -> None:
    """They are measured, whatever the size that something is learnt from."""
    file = own_dataset_dir / "annotations/val.json"
    edit_json(file, lambda d: [a.update(segmentation=[[1, 1, 3, 1, 3, 2, 1, 2]]) for a in d["annotations"]])
    config = DetectorConfig(iterations=1, batch_size=2, eval_interval=1, min_instance_pixels=4)
    assert train(own_dataset_dir, tmp_path / "out", config, device="cpu").iterations == 1


def test_parts_that_stacked_bands_do_not_have_are_refused_before_the_pretraining(
    dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, fusion="stack", freeze=("rgb",))
    with pytest.raises(ConfigError, match="'rgb' cannot be frozen or slowed with fusion = 'stack'"):
        train_in_stages(dataset_dir, tmp_path / "out", config, device="cpu")
    assert not (tmp_path / "out").exists()
