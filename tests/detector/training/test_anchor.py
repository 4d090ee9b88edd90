"""The anchor as measured: the modality whose own detector finds the most."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ml_backend.detector import (
    CannotResumeError,
    ConfigError,
    DatasetError,
    DetectorConfig,
    TrainResult,
    evaluate,
    inspect,
    read_dataset,
    train,
    train_in_stages,
)
from ml_backend.detector.commands import main
from ml_backend.detector.training.anchor import anchor_scores, best_anchor, kept_scores
from tests.detector.files import edit_json


@pytest.fixture(scope="module")
def elevation(dataset_dir: Path, quick: DetectorConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A detector that sees elevation alone, and has learnt for a while."""
    config = replace(quick, modalities=("relative_elevation",), iterations=40, learning_rate=1e-3, save_interval=40)
    return train(dataset_dir, tmp_path_factory.mktemp("elevation"), config, device="cpu")


@pytest.mark.parametrize("fusion", ["residual_cross_attention", "stack"])
def test_the_best_single_detector_becomes_the_anchor(
    fusion: str,
    dataset_dir: Path,
    quick: DetectorConfig,
    elevation: TrainResult,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Colour, which is the dataset's anchor, learns nothing in one step."""
    assert read_dataset(dataset_dir).anchor == "rgb"
    arguments = ["stages", "--dataset", str(dataset_dir), "--out", str(tmp_path), "--device", "cpu", "--choose-anchor"]
    arguments += ["--batch-size", "2", "--iterations", "1", "--fusion", fusion]
    assert main([*arguments, "--from", f"relative_elevation={elevation.checkpoint}"]) == 0
    assert "anchor: relative_elevation (share of val found by each alone: rgb 0.000" in capsys.readouterr().out
    summary = json.loads((tmp_path / "stages.json").read_text())
    assert summary["anchor"] == "relative_elevation"
    assert json.loads((tmp_path / "anchor.json").read_text())["scores"] == summary["anchor_scores"]
    assert 0 == summary["anchor_scores"]["rgb"] < summary["anchor_scores"]["relative_elevation"] <= 1
    card = inspect(summary["checkpoint"])
    assert card["anchor"] == card["config"]["anchor"] == "relative_elevation"
    own = inspect(elevation.checkpoint)["weights"]["sha256"]
    assert card["init"]["relative_elevation"] == own
    assert ("rgb" in card["init"]) == (fusion != "stack")
    before, after = (
        load_file(Path(path) / "model.safetensors") for path in (elevation.checkpoint, summary["checkpoint"])
    )
    drift = [(after[key] - before[key]).abs().max() for key in before if key.startswith("neck.")]
    assert max(drift) < 0.01, "the neck is the anchor's, one step on"


def test_objects_where_the_modality_is_missing_count_as_missed(
    own_dataset_dir: Path, tmp_path: Path, elevation: TrainResult
) -> None:
    dataset = read_dataset(own_dataset_dir)
    known = {"relative_elevation": {"ap50": 0.8}}
    models = {"relative_elevation": elevation.checkpoint}
    assert anchor_scores(dataset, models, known, "cpu") == {"relative_elevation": 0.8}
    first, *others = dataset.tiles("val")
    (own_dataset_dir / f"chips/relative_elevation/{first.stem}.tif").unlink()
    there = sum(len(tile.instances) for tile in others)
    share = there / (there + len(first.instances))
    assert 0 < share < 1
    assert anchor_scores(dataset, models, known, "cpu")["relative_elevation"] == pytest.approx(0.8 * share)
    for file in (own_dataset_dir / "chips/relative_elevation").glob("val_*"):
        file.unlink()
    assert anchor_scores(dataset, models, {}, "cpu") == {"relative_elevation": 0}


def test_given_detectors_are_measured(dataset_dir: Path, elevation: TrainResult) -> None:
    """Their cards may tell of another dataset."""
    dataset = read_dataset(dataset_dir)
    measured = anchor_scores(dataset, {"relative_elevation": elevation.checkpoint}, {}, "cpu")["relative_elevation"]
    found = evaluate(dataset_dir, elevation.checkpoint, split="val", device="cpu", resamples=0).ap50
    assert 0 < measured <= found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"anchor": "rgb"}}, "The anchor 'rgb' is named, and is to be chosen by measurement"),
        ({"sources": "trained"}, "was trained on rgb, relative_elevation together, so it gives no score of 'rgb'"),
    ],
)
def test_what_leaves_nothing_to_choose_is_refused(
    change: dict[str, Any], message: str, dataset_dir: Path, quick: DetectorConfig, trained: TrainResult, tmp_path: Path
) -> None:
    config = replace(quick, **change.get("config", {}))
    sources = {"rgb": trained.checkpoint} if "sources" in change else None
    with pytest.raises(ConfigError, match=message):
        train_in_stages(dataset_dir, tmp_path / "out", config, sources=sources, choose_anchor=True, device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoil", ["empty", "missing"])
def test_without_objects_to_measure_on_there_is_no_choice(
    spoil: str, own_dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    file = own_dataset_dir / "annotations/val.json"
    if spoil == "missing":
        file.unlink()
    else:
        edit_json(file, lambda d: d.update(annotations=[]))
    with pytest.raises(DatasetError, match=r"val\.json is missing or holds no objects, so no anchor can be chosen"):
        train_in_stages(own_dataset_dir, tmp_path / "out", quick, choose_anchor=True, device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_choice_is_kept_for_the_same_models_and_data(
    dataset_dir: Path, elevation: TrainResult, tmp_path: Path
) -> None:
    """Another device would round otherwise, and what was trained on the first choice could not be gone on with."""
    dataset = read_dataset(dataset_dir)
    models = {"relative_elevation": elevation.checkpoint}
    file = tmp_path / "anchor.json"
    assert kept_scores(file, dataset, models, lambda: {"relative_elevation": 0.3}) == {"relative_elevation": 0.3}
    assert kept_scores(file, dataset, models, lambda: {"relative_elevation": 0.9}) == {"relative_elevation": 0.3}
    edit_json(file, lambda data: data["measured_on"].update(dataset="another"))
    assert kept_scores(file, dataset, models, lambda: {"relative_elevation": 0.5}) == {"relative_elevation": 0.5}
    for damage in ("{", "[]", "{}"):
        file.write_text(damage)
        with pytest.raises(
            CannotResumeError, match=r"anchor\.json is damaged: remove it, and the anchor is chosen again"
        ):
            kept_scores(file, dataset, models, dict)


def test_of_two_alike_it_is_the_usual_one() -> None:
    config = DetectorConfig(modalities=("relative_elevation", "rgb"), anchor="rgb")
    assert best_anchor({"relative_elevation": 0.2, "rgb": 0.2}, config) == "rgb"
    assert best_anchor({}, config) == "rgb"
    assert best_anchor({"relative_elevation": 0.3, "rgb": 0.2}, config) == "relative_elevation"
