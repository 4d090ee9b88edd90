"""Exported detectors: written only when they compute what the checkpoint does, and used like one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml_backend.detector import (
    CheckpointError,
    ChipInput,
    ConfigError,
    Detector,
    DeviceError,
    ExportError,
    TrainResult,
    inspect,
    load,
)
from ml_backend.detector.commands import main
from ml_backend.detector.inference import export as exporting
from ml_backend.detector.inference.export import export
from ml_backend.detector.inference.exported import PARTS
from ml_backend.detector.inference.parity import Parity, matching


def test_parity_counts_what_both_found(detector: Detector, chips: list[ChipInput]) -> None:
    (result,) = detector.predict(chips[:1])
    found = result.detections
    assert matching(found, found, (64, 64)) == len(found) > 0
    assert matching(found, found[::-1], (64, 64)) == len(found)
    assert matching(found, found[1:], (64, 64)) == len(found) - 1
    moved = replace(found[0], score=found[0].score - 0.02)
    assert matching(found, (moved, *found[1:]), (64, 64)) == len(found) - 1
    shifted = replace(found[0], rings=[ring + np.float32(3) for ring in found[0].rings])
    assert matching([found[0]], [shifted], (64, 64)) == 0


def test_an_export_that_differs_is_refused() -> None:
    good = Parity({"backbone": 1e-6}, 1.0, 10, 2, "generated tiles")
    good.require()
    for bad, message in (
        (replace(good, differences={"backbone": 1e-6, "neck": 0.1}), "exported neck differs"),
        (replace(good, differences={"backbone": float("nan")}), "exported backbone differs"),
        (replace(good, agreement=0.5), "only 50.0% of 10 detections"),
    ):
        with pytest.raises(ExportError, match=message):
            bad.require()


def test_what_cannot_be_exported_is_refused_at_once(
    trained: TrainResult, chips: list[ChipInput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match="exists: give the name of a new folder"):
        export(trained.checkpoint, tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.json is missing"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="has 64 x 64 pixels, but the export is for 96 x 128"):
        export(trained.checkpoint, tmp_path / "out", size=(128, 96), chips=chips[:1])
    monkeypatch.setattr(exporting, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(ExportError, match="Exporting needs no_such_package: pip install no_such_package"):
        export(trained.checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def folder(trained: TrainResult, dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "onnx"
    arguments = ["--checkpoint", str(trained.checkpoint), "--out", str(out), "--dataset", str(dataset_dir)]
    assert main(["export", *arguments, "--size", "64x64", "--split", "train", "--json"]) == 0
    return out


@pytest.fixture(scope="module")
def exported(folder: Path) -> Detector:
    return load(folder)


@pytest.mark.slow
def test_the_export_finds_what_the_checkpoint_finds(
    detector: Detector, exported: Detector, chips: list[ChipInput]
) -> None:
    """At any batch size, in all symmetries, and with modalities missing."""
    for options in ({}, {"batch_size": 3}, {"tta": "d4"}):
        for one, other in zip(detector.predict(chips, **options), exported.predict(chips, **options), strict=True):
            np.testing.assert_allclose(other.embedding, one.embedding, atol=1e-4)
            assert len(one.detections) == len(other.detections)
            assert matching(one.detections, other.detections, (64, 64)) == len(one.detections)
    boxes = [(4.0, 6.0, 30.0, 28.0)]
    (one,), (other,) = detector.segment(chips[0], boxes), exported.segment(chips[0], boxes)
    assert other.score == pytest.approx(one.score, abs=1e-4)


@pytest.mark.slow
def test_the_card_says_how_well_they_agree(folder: Path, trained: TrainResult) -> None:
    card = inspect(folder)
    assert {**card, "export": None} == {**inspect(trained.checkpoint), "export": None}
    assert card["export"]["tile"] == [64, 64]
    assert card["export"]["parity"]["agreement"] == 1
    assert card["export"]["parity"]["detections"] > 0
    assert set(card["export"]["parity"]["differences"]) == set(PARTS)
    assert [file.name for file in folder.parent.iterdir()] == ["onnx"]  # no drafts are left


@pytest.mark.slow
def test_the_export_serves_like_a_checkpoint(
    folder: Path, trained: TrainResult, dataset_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []
    for checkpoint in (folder, trained.checkpoint):
        both = ["--dataset", str(dataset_dir), "--checkpoint", str(checkpoint), "--device", "cpu"]
        assert main(["evaluate", *both, "--split", "val", "--json"]) == 0
        measured.append(json.loads(capsys.readouterr().out))
    assert measured[0]["ap30"] == pytest.approx(measured[1]["ap30"], abs=0.02)
    assert main(["info", str(folder)]) == 0
    assert "modality    rgb (anchor)" in capsys.readouterr().out


@pytest.mark.slow
def test_larger_tiles_are_cut_and_smaller_ones_refused(exported: Detector, mosaic: ChipInput) -> None:
    (result,) = exported.predict([mosaic])
    assert max(d.rings[0].max() for d in result.detections) > 64
    small = ChipInput({name: array[:, :24, :24] for name, array in mosaic.arrays.items()}, {})
    with pytest.raises(CheckpointError, match="takes tiles of 64 x 64 pixels only"):
        exported.predict([small])


@pytest.mark.slow
def test_damaged_or_misused_exports_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="is exported for the CPU"):
        load(folder, "cuda")
    with pytest.raises(CheckpointError, match="is exported already"):
        export(folder, tmp_path / "again")
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "neck.onnx").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"neck\.onnx is truncated or altered"):
        load(copy)
    (copy / "neck.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"neck\.onnx is missing"):
        load(copy)


@pytest.mark.slow
def test_nothing_is_written_when_the_graphs_compute_something_else(
    trained: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*arguments: object) -> Parity:
        return replace(real(*arguments), agreement=0.1)  # type: ignore[arg-type]

    real = exporting.compare
    monkeypatch.setattr(exporting, "compare", spoilt)
    with pytest.raises(ExportError, match="Nothing is written"):
        export(trained.checkpoint, tmp_path / "out", size=(64, 64))
    assert list(tmp_path.iterdir()) == []
