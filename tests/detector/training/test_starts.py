"""Where a training begins: earlier models, whole or modality by modality, and which of their parts move."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ml_backend.detector import (
    CheckpointError,
    DetectorConfig,
    TrainResult,
    inspect,
    load,
    read_dataset,
    train,
    train_in_stages,
)
from ml_backend.detector.chips import read_tile
from tests.detector.training.checkpoints import BRANCH, weights


@pytest.fixture(scope="module")
def unimodal(
    dataset_dir: Path, quick: DetectorConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrainResult]:
    """A short pretraining per modality."""
    root = tmp_path_factory.mktemp("unimodal")
    return {
        name: train(dataset_dir, root / name, replace(quick, modalities=(name,), seed=seed), device="cpu")
        for seed, name in enumerate(("rgb", "relative_elevation"))
    }


def test_warm_start_begins_with_the_earlier_weights_and_normalisation(
    dataset_dir: Path, own_dataset_dir: Path, trained: TrainResult, quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=1, learning_rate=1e-12)
    result = train(own_dataset_dir, tmp_path / "out", config, init=trained.checkpoint, device="cpu")
    earlier, later = weights(trained), weights(result)
    for name in earlier:
        torch.testing.assert_close(later[name], earlier[name], atol=1e-6, rtol=0)
    cards = inspect(trained.checkpoint), inspect(result.checkpoint)
    assert cards[0]["modalities"] == cards[1]["modalities"]
    assert cards[1]["init"] == {"all": cards[0]["weights"]["sha256"]}


@pytest.mark.parametrize("anchor", ["rgb", "relative_elevation"])
def test_fine_tuning_takes_each_backbone_from_its_own_model_and_heads_from_the_anchor(
    anchor: str, dataset_dir: Path, unimodal: dict[str, TrainResult], quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=1, learning_rate=1e-12, anchor=anchor)
    sources = {name: result.checkpoint for name, result in unimodal.items()}
    result = train(dataset_dir, tmp_path / "out", config, init=sources, device="cpu")
    tuned = weights(result)
    for name, source in unimodal.items():
        for key, value in weights(source).items():
            if key.startswith(BRANCH.format(name)) or name == anchor:
                torch.testing.assert_close(tuned[key], value, atol=1e-6, rtol=0)
    other = next(name for name in unimodal if name != anchor)
    assert any(
        not torch.equal(tuned[key], value) for key, value in weights(unimodal[other]).items() if "roi_head" in key
    )


@pytest.mark.parametrize("fusion", ["residual_cross_attention", "stack"])
def test_fine_tuning_starts_as_exactly_the_anchors_detector(
    fusion: str, dataset_dir: Path, unimodal: dict[str, TrainResult], quick: DetectorConfig, tmp_path: Path
) -> None:
    """With everything frozen but the fusion's zero, the joint model must answer like the unimodal one."""
    needed = ("rgb",) if fusion == "stack" else ("rgb", "relative_elevation")
    sources = {name: unimodal[name].checkpoint for name in needed}
    config = replace(quick, iterations=1, learning_rate=1e-30, fusion=fusion)
    joint = load(train(dataset_dir, tmp_path / "out", config, init=sources, device="cpu").checkpoint, "cpu")
    alone = load(unimodal["rgb"].checkpoint, "cpu")
    dataset = read_dataset(dataset_dir)
    chips = [read_tile(dataset, joint.modalities, tile) for tile in dataset.tiles("train")[:3]]
    for a, b in zip(joint.predict(chips), alone.predict(chips), strict=True):
        # the joint embedding counts pixels where any modality is valid: here all of them, in both
        torch.testing.assert_close(torch.from_numpy(a.embedding), torch.from_numpy(b.embedding), atol=1e-4, rtol=1e-3)
        assert [d.score for d in a.detections] == pytest.approx([d.score for d in b.detections], abs=1e-4)


def test_starts_that_do_not_fit_are_refused(
    dataset_dir: Path,
    unimodal: dict[str, TrainResult],
    trained: TrainResult,
    quick: DetectorConfig,
    tmp_path: Path,
) -> None:
    rgb, dem = (unimodal[name].checkpoint for name in ("rgb", "relative_elevation"))
    one_backbone = replace(quick, iterations=1, fusion="stack")
    stacked = train(dataset_dir, tmp_path / "stacked", one_backbone, init={"rgb": rgb}, device="cpu").checkpoint
    cases = [
        (quick, rgb, "is a checkpoint for the modalities rgb, not rgb, relative_elevation"),
        (replace(quick, fusion="stack"), trained.checkpoint, "was trained with fusion = 'residual_cross_attention'"),
        (replace(quick, anchor="relative_elevation"), trained.checkpoint, "was trained with anchor = 'rgb'"),
        (replace(quick, size="tiny"), trained.checkpoint, "was trained with size = 'nano'"),
        (replace(quick, size="tiny"), {"rgb": rgb}, "is of size 'nano', but 'tiny'"),
        (quick, {"relative_elevation": dem}, "no checkpoint of 'rgb' is given"),
        (quick, {"rgb": dem}, "is a checkpoint for the modalities relative_elevation, not for 'rgb'"),
        (quick, {"rgb": stacked}, "has one backbone for all modalities"),
        (quick, {"rgb": trained.checkpoint}, "knows 'relative_elevation', too, whose backbone would"),
        (replace(quick, fusion="stack"), {"rgb": rgb, "relative_elevation": dem}, "begins as that of 'rgb': leave it"),
        (quick, {"rgb": rgb, "ndvi": dem}, "given for modality 'ndvi', but the training uses"),
        (quick, tmp_path / "nowhere", r"model\.json is missing"),
    ]
    for config, init, message in cases:
        with pytest.raises(CheckpointError, match=message):
            train(dataset_dir, tmp_path / "out", config, init=init, device="cpu")
    assert not (tmp_path / "out").exists(), "refused before anything is written"


def test_a_modality_is_added_to_a_multimodal_model(
    own_dataset_dir: Path, trained: TrainResult, quick: DetectorConfig, tmp_path: Path
) -> None:
    add_modality(own_dataset_dir, "slope", like="relative_elevation")
    sources = dict.fromkeys(("rgb", "relative_elevation"), trained.checkpoint)
    config = replace(quick, iterations=1, learning_rate=1e-30, modality_dropout=0.0)
    grown = train(own_dataset_dir, tmp_path / "out", config, init=sources, device="cpu")
    earlier, now = weights(trained), weights(grown)
    kept = [name for name in earlier if not name.startswith("backbone.fusion.")]
    assert all(torch.equal(earlier[name], now[name]) for name in kept)
    assert any(name.startswith(BRANCH.format("slope")) for name in now)
    assert now["backbone.fusion.0.project.weight"].abs().max() < 1e-20, "the fusion begins anew"
    scaled = {m.name: (m.mean, m.std) for m in load(grown.checkpoint, "cpu").modalities}
    for modality in load(trained.checkpoint, "cpu").modalities:
        assert scaled[modality.name] == (modality.mean, modality.std), "normalisation comes with the weights"


def add_modality(root: Path, name: str, like: str) -> None:
    """Declare another modality, with the pixels of one that is there."""
    file = root / "dataset.json"
    data = json.loads(file.read_text())
    (model,) = (m for m in data["modalities"] if m["name"] == like)
    data["modalities"].append({**model, "name": name, "bands": [name]})
    file.write_text(json.dumps(data))
    shutil.copytree(root / "chips" / like, root / "chips" / name)


def test_sources_are_checked_before_the_pretraining(
    dataset_dir: Path, unimodal: dict[str, TrainResult], quick: DetectorConfig, tmp_path: Path
) -> None:
    wrong = {"relative_elevation": unimodal["rgb"].checkpoint}
    with pytest.raises(CheckpointError, match="not for 'relative_elevation'"):
        train_in_stages(dataset_dir, tmp_path / "out", quick, sources=wrong, device="cpu")
    assert not (tmp_path / "out").exists()


def test_frozen_parts_do_not_move(
    dataset_dir: Path, trained: TrainResult, quick: DetectorConfig, tmp_path: Path
) -> None:
    config = replace(quick, iterations=1, freeze=("rgb", "roi_head"), warmup=0)
    tuned = weights(train(dataset_dir, tmp_path / "out", config, init=trained.checkpoint, device="cpu"))
    earlier = weights(trained)
    moved = {name for name in earlier if not torch.equal(earlier[name], tuned[name])}
    assert moved
    assert not any(name.startswith((BRANCH.format("rgb"), "roi_head.")) for name in moved)
    assert any(name.startswith(BRANCH.format("relative_elevation")) for name in moved)
    assert any(name.startswith("neck.") for name in moved)
