"""A detector in memory: what it returns, and what must not change it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch

from ml_backend.detector import (
    CheckpointError,
    ChipInput,
    ConfigError,
    Detector,
    DeviceError,
    TileResult,
    TrainResult,
    inspect,
    load,
)
from ml_backend.detector.inference import network


def same(a: TileResult, b: TileResult) -> bool:
    """Equal but for the time taken."""
    return json.dumps([d.to_json() for d in a.detections]) == json.dumps([d.to_json() for d in b.detections]) and (
        np.array_equal(a.embedding, b.embedding)
    )


def test_detections_keep_their_contract(detector: Detector, chips: list[ChipInput]) -> None:
    results = detector.predict(chips)
    assert len(results) == len(chips)
    assert any(result.detections for result in results)
    tile = shapely.box(0, 0, 64, 64)
    for result in results:
        assert (result.embedding.dtype, result.embedding.shape) == (np.float32, (256,))
        assert np.isfinite(result.embedding).all()
        assert [d.score for d in result.detections] == sorted((d.score for d in result.detections), reverse=True)
        for detection in result.detections:
            polygon = shapely.Polygon(detection.rings[0], detection.rings[1:])
            assert polygon.is_valid
            assert tile.covers(polygon)
            assert detection.class_name == "RTS"
            assert len(detection.stage_scores) == 3
            assert detection.stage_boxes.shape == (3, 4)
            numbers = [detection.score, *detection.stage_scores, detection.mask_entropy, detection.class_entropy]
            assert all(0 <= number <= 1 for number in numbers)


def test_the_last_stage_box_holds_the_outline(detector: Detector, chips: list[ChipInput]) -> None:
    for result in detector.predict(chips):
        for detection in result.detections:
            x1, y1, x2, y2 = detection.stage_boxes[-1]
            low, high = detection.rings[0].min(axis=0), detection.rings[0].max(axis=0)
            assert (low >= [x1 - 1.5, y1 - 1.5]).all()
            assert (high <= [x2 + 1.5, y2 + 1.5]).all()


def test_an_absent_modality_predicts_as_a_wholly_invalid_one(detector: Detector, chips: list[ChipInput]) -> None:
    chip = next(chip for chip in chips if len(chip.arrays) == 2)
    absent = ChipInput({"rgb": chip.arrays["rgb"]}, {"rgb": chip.valid["rgb"]})
    garbage = np.full_like(chip.arrays["relative_elevation"], 1e6)
    invalid = ChipInput(
        {**chip.arrays, "relative_elevation": garbage},
        {**chip.valid, "relative_elevation": np.zeros((64, 64), dtype=bool)},
    )
    nan = ChipInput({**chip.arrays, "relative_elevation": np.full_like(garbage, np.nan)}, chip.valid)
    expected = detector.predict([absent])[0]
    assert same(detector.predict([invalid])[0], expected)
    assert same(detector.predict([nan])[0], expected)


def test_values_under_invalid_pixels_do_not_matter(detector: Detector, chips: list[ChipInput]) -> None:
    chip = next(chip for chip in chips if len(chip.arrays) == 2)
    valid = {**chip.valid, "rgb": chip.valid["rgb"].copy()}
    valid["rgb"][:20] = False
    spoiled = {**chip.arrays, "rgb": chip.arrays["rgb"].copy()}
    spoiled["rgb"][:, :20] = -1e9
    assert same(detector.predict([ChipInput(spoiled, valid)])[0], detector.predict([ChipInput(chip.arrays, valid)])[0])


def test_tiles_of_different_sizes_do_not_disturb_each_other(detector: Detector, chips: list[ChipInput]) -> None:
    small = ChipInput({"rgb": chips[1].arrays["rgb"][:, :40, :48]}, {})
    together = detector.predict([chips[0], small])
    assert same(together[0], detector.predict([chips[0]])[0])
    assert same(together[1], detector.predict([small])[0])
    assert all(shapely.box(0, 0, 48, 40).covers(shapely.Polygon(d.rings[0])) for d in together[1].detections)


def test_thresholds_leave_out(detector: Detector, chips: list[ChipInput]) -> None:
    (everything,) = detector.predict(chips[:1], max_overlap=1.0)
    assert len(everything.detections) > 2
    cut = everything.detections[1].score
    (certain,) = detector.predict(chips[:1], score_threshold=cut, max_overlap=1.0)
    assert [d.score for d in certain.detections] == [d.score for d in everything.detections if d.score >= cut]
    assert len(detector.predict(chips[:1], max_detections=1)[0].detections) == 1
    assert detector.predict(chips[:1], min_pixels=64 * 64 + 1)[0].detections == ()
    assert detector.predict([]) == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"tolerance": -1.0}, "tolerance of -1.0 makes no sense"),
        ({"tolerance": float("nan")}, "tolerance of nan"),
        ({"score_threshold": float("nan")}, "score threshold of nan"),
        ({"score_threshold": 1.5}, "score threshold of 1.5 makes no sense: give a score from 0 to 1"),
        ({"min_pixels": -1}, "smallest size of -1"),
        ({"max_detections": -1}, "largest number of detections of -1"),
        ({"batch_size": 0}, "batch size of 0"),
    ],
)
def test_limits_that_make_no_sense_are_refused_before_any_work(
    limits: dict[str, Any], message: str, detector: Detector, chips: list[ChipInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    for work in ("detect", "segment_boxes"):
        monkeypatch.setattr(network, work, lambda *arguments: pytest.fail("it worked"))
    with pytest.raises(ConfigError, match=message):
        detector.predict(chips[:1], **limits)
    if "tolerance" in limits:
        with pytest.raises(ConfigError, match=message):
            detector.segment(chips[0], [(4.0, 6.0, 30.0, 28.0)], **limits)


def test_resampled_input_answers_in_tile_pixels(trained: TrainResult, chips: list[ChipInput]) -> None:
    """The same pixels, twice as large, seen by a network that halves them: the same instances, twice as large."""
    detector = load(trained.checkpoint, "cpu")
    (small,) = detector.predict(chips[:1], min_pixels=0)
    detector.reduction = 2.0
    doubled = ChipInput({name: a.repeat(2, 1).repeat(2, 2) for name, a in chips[0].arrays.items()}, {})
    (large,) = detector.predict([doubled], min_pixels=0, window=128)
    boxes = [np.stack([d.stage_boxes for d in result.detections[:5]]) for result in (small, large)]
    # antialiased halving of doubled pixels is not the identity, so boxes agree to within a few pixels
    assert np.abs(boxes[1].mean(axis=(0, 1)) - 2 * boxes[0].mean(axis=(0, 1))).max() < 16
    assert max(d.rings[0].max() for d in large.detections) > 66
    assert all(shapely.box(0, 0, 128, 128).covers(shapely.Polygon(d.rings[0])) for d in large.detections)


def test_the_card_says_what_the_model_is(trained: TrainResult) -> None:
    card = inspect(trained.checkpoint)
    assert card["classes"] == ["RTS"]
    assert [m["name"] for m in card["modalities"]] == ["rgb", "relative_elevation"]
    assert all(len(m["mean"]) == len(m["bands"]) for m in card["modalities"])
    assert card["config"]["modalities"] == ["rgb", "relative_elevation"]
    assert card["dataset"]["name"] == "synthetic"
    assert len(card["dataset"]["checksum"]) == 64
    assert card["metrics"] == trained.metrics
    assert card["weights"]["parameters"] > 1e6
    assert card["tile_size"] == 64
    assert inspect(trained.checkpoint / "model.safetensors") == card


def spoil_json(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, **changes}))


def spoil_config(folder: Path, **changes: object) -> None:
    spoil_json(folder, config={**inspect(folder)["config"], **changes})


def spoil_modality(folder: Path, **changes: object) -> None:
    first, *others = inspect(folder)["modalities"]
    spoil_json(folder, modalities=[{**first, **changes}, *others])


def folder_for_a_card(folder: Path) -> None:
    (folder / "model.json").unlink()
    (folder / "model.json").mkdir()


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda f: (f / "model.json").unlink(), r"model\.json is missing"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "truncated weights": (truncate, r"model\.safetensors is truncated or altered"),
    "card is no JSON": (lambda f: (f / "model.json").write_text("{"), r"model\.json is not valid JSON"),
    "another format": (lambda f: spoil_json(f, format="other/9"), "not a detector card of format"),
    "card of another model": (lambda f: spoil_json(f, classes=["RTS", "lake"]), "does not fit the model it describes"),
    "card without end": (lambda f: (f / "model.json").write_text("[" * 100_000), r"model\.json is not valid JSON"),
    "card in Latin-1": (lambda f: (f / "model.json").write_bytes(b'{"a": "\xe9"}'), r"model\.json is not valid JSON"),
    "card is a folder": (folder_for_a_card, r"model\.json cannot be read"),
    "card is a list": (lambda f: (f / "model.json").write_text("[]"), "not a detector card of format"),
    "no classes": (lambda f: spoil_json(f, classes=[]), r"model\.json is damaged .'classes' is no list"),
    "a class twice": (lambda f: spoil_json(f, classes=["RTS", "RTS"]), "'classes' is no list"),
    "weights are null": (lambda f: spoil_json(f, weights=None), r"model\.json is damaged .'weights' holds no SHA-256"),
    "weights are empty": (lambda f: spoil_json(f, weights={}), "'weights' holds no SHA-256"),
    "checksum is a number": (lambda f: spoil_json(f, weights={"sha256": 7}), "'weights' holds no SHA-256"),
    "config is null": (lambda f: spoil_json(f, config=None), r"model\.json holds settings .* wrote it or newer"),
    "config of tomorrow": (
        lambda f: spoil_config(f, telepathy=True),
        "setting `telepathy`.* wrote it or newer",
    ),
    "a setting is text": (lambda f: spoil_config(f, iterations="x"), "`iterations` is 'x'; it must be a whole number"),
    "another modality": (lambda f: spoil_config(f, modalities=["rgb"]), "'modalities' are not those of its settings"),
    "another anchor": (lambda f: spoil_config(f, anchor="ndvi"), "'modalities' are not those of its settings"),
    "modalities are null": (lambda f: spoil_json(f, modalities=None), "'modalities' is no list"),
    "no mean": (lambda f: spoil_modality(f, mean=[], std=[]), "modality 'rgb' has no 'mean' and 'std'"),
    "mean of one": (lambda f: spoil_modality(f, mean=[1.0]), "'mean' and positive 'std' of modality 'rgb'"),
    "no bands": (lambda f: spoil_modality(f, bands=None), "modality 'rgb' declares no bands"),
    "metrics are a list": (lambda f: spoil_json(f, metrics=[]), "'metrics' is no object"),
    "tile size is text": (lambda f: spoil_json(f, tile_size="x"), "'tile_size' is no number of pixels"),
    "tile size is nothing": (lambda f: spoil_json(f, tile_size=0), "'tile_size' is no number of pixels"),
    "temperature is text": (lambda f: spoil_json(f, metrics={"best_temperature": "x"}), "'best_temperature' is no num"),
    "temperature is NaN": (lambda f: spoil_json(f, metrics={"best_temperature": float("nan")}), "is no number"),
    "threshold is a list": (lambda f: spoil_json(f, metrics={"best_score_threshold": [1]}), "_threshold' is no number"),
    "network of yesterday": (lambda f: spoil_json(f, architecture=1), "is of version 1 of the network"),
    "network of tomorrow": (lambda f: spoil_json(f, architecture=99), "is of version 99 of the network"),
    "export is null-like": (lambda f: spoil_json(f, export={"tile": 3}), "'export' does not name its tile and graphs"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(damage: str, trained: TrainResult, tmp_path: Path) -> None:
    spoil, message = DAMAGES[damage]
    folder = shutil.copytree(trained.checkpoint, tmp_path / "checkpoint")
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as refusal:
        load(folder, "cpu")
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_card_of_an_earlier_version_may_say_less(trained: TrainResult, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.checkpoint, tmp_path / "checkpoint")
    card = json.loads((folder / "model.json").read_text())
    kept = {key: card[key] for key in ("format", "architecture", "config", "classes", "modalities", "weights")}
    kept["config"] = {key: kept["config"][key] for key in ("size", "fusion", "modalities", "anchor")}
    (folder / "model.json").write_text(json.dumps(kept))
    assert load(folder, "cpu").classes == ("RTS",)


class SmallMemory:
    """Stands in for a GPU that holds only so many tiles."""

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, []

    def __call__(self, model: Any, tiles: list[Any], symmetries: Any) -> tuple[list[Any], np.ndarray]:
        self.tried.append(len(tiles))
        if len(tiles) > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        return real_find(model, tiles, symmetries)


real_find = network.detect


def test_a_batch_too_large_for_the_gpu_is_halved_and_that_remembered(
    detector: Detector, chips: list[ChipInput], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = SmallMemory(room=2)
    monkeypatch.setattr(network, "detect", memory)
    monkeypatch.setattr(detector, "_fitting", {})
    results = detector.predict(chips[:5], batch_size=5)
    assert len(results) == 5
    assert memory.tried == [5, 2, 2, 1]
    assert "does not hold 5 tiles of 64 x 64 pixels at once: continuing with a batch size of 2" in caplog.text
    memory.tried.clear()
    detector.predict(chips[:4], batch_size=5)
    assert memory.tried == [2, 2]
    memory.room = 0
    with pytest.raises(DeviceError, match="does not hold a single tile of 64 x 64 pixels"):
        detector.predict(chips[:2])


def test_unknown_devices_are_refused(trained: TrainResult) -> None:
    with pytest.raises(DeviceError, match="'gpu' is unknown"):
        load(trained.checkpoint, "gpu")
    for name in ("mps", "meta"):  # torch knows them, but nothing here has been tried on them
        with pytest.raises(DeviceError, match=f"'{name}' is unknown: use auto, cpu, cuda or cuda:N"):
            load(trained.checkpoint, name)
    with pytest.raises(DeviceError, match=r"offers . CUDA devices"):
        load(trained.checkpoint, "cuda:7")


def test_importing_the_room_and_reading_cards_needs_no_torch(trained: TrainResult) -> None:
    code = (
        "import sys, ml_backend.detector as d; d.DetectorConfig(); d.inspect(sys.argv[1]); "
        "print(*({'torch', 'mmdet', 'django'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code, trained.checkpoint], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
