"""The script that makes the evidence puts tables where the document wants them, and changes nothing else."""

import importlib.util
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import detector_inference
from benchmarks.detector_augmentation import WAYS, compared
from benchmarks.detector_recipes import level

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    """scripts/detector_evidence.py as a module."""
    spec = importlib.util.spec_from_file_location("detector_evidence", ROOT / "scripts" / "detector_evidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_replace_what_stands_between_their_marks(evidence: ModuleType) -> None:
    text = "a\n<!-- table: x -->\nold\n<!-- end: x -->\nb\n<!-- table: y -->\nkept\n<!-- end: y -->\n"
    filled = evidence.fill(text, {"x": "new\n", "z": "nowhere"})
    assert filled == text.replace("old", "new")
    assert evidence.fill(filled, {"x": "new"}) == filled


def test_the_document_has_a_place_for_every_result(evidence: ModuleType) -> None:
    text = (ROOT / "docs" / "detector.md").read_text()
    for name in (*evidence.DATASETS, *evidence.BENCHMARKS):
        assert evidence.fill(text, {name: "MEASURED"}).count("MEASURED") == 1, name


def measured(seed: int, joint: list[list[float]], tuned: list[list[float]]) -> dict[str, Any]:
    """What the recipes benchmark says of a seed."""
    short = {"curve": [[10, 25.0, 0.59]]}
    result: dict[str, Any] = {"seed": seed, "joint": [short, {"curve": joint}], "finetune": [{"curve": tuned}]}
    result["pretraining"] = {"rgb": {"seconds": 10.0}, "dem": {"seconds": 20.0}}
    return {**result, "levels": [level(result, share) for share in (0.5, 1.0)]}


def test_time_to_an_accuracy_is_that_of_the_first_measurement_that_has_it(evidence: ModuleType) -> None:
    joint = [[10, 20.0, 0.2], [20, 40.0, 0.6], [30, 60.0, 0.5]]
    quick = measured(0, joint, [[10, 10.0, 0.4], [20, 30.0, 0.7]])
    slow = measured(1, joint, [[10, 10.0, 0.1], [20, 30.0, 0.4]])
    assert [one["ratio"] for one in quick["levels"]] == [0.4, 0.75]
    assert [one["ratio_with_pretraining"] for one in quick["levels"]] == [1.6, 1.5]
    table = evidence.recipes_table(
        {"joint": [10, 30], "pretrain": 5, "finetune": [20], "every": 10, "seeds": [quick, slow]}
    )
    assert "| 50% | 25, 25 | 10, 30 | 0.40, 1.20 | 1.60, 2.40 |" in table
    assert "| 100% | 40, 40 | 30, not reached | 0.75, not reached | 1.50, not reached |" in table
    assert "joint training 0.600, 0.600; fine-tuning 0.700, 0.400" in table


def test_what_never_finds_anything_reaches_nothing() -> None:
    assert (
        level({"joint": [{"curve": [[1, 1.0, 0.0]]}], "finetune": [{"curve": []}], "pretraining": {}}, 0.5)["ratio"]
        is None
    )


def test_augmentations_are_compared_with_the_default_seed_by_seed(evidence: ModuleType) -> None:
    default, other = list(WAYS)[:2]
    scores = {default: (0.5, 0.6), other: (0.4, 0.5)}
    results = {
        way: {seed: {"ap": ap50 / 2, "ap50": ap50} for seed, ap50 in enumerate(values)}
        for way, values in scores.items()
    }
    table = evidence.augmentation_table({"iterations": 9, "size": "nano", "seeds": [0, 1], "ways": compared(results)})
    assert f"| {default} | 0.275 ± 0.035 | 0.550 ± 0.071 |  |" in table
    assert f"| {other} | 0.225 ± 0.035 | 0.450 ± 0.071 | -0.100 (-0.100 to -0.100) |" in table


@pytest.mark.slow
def test_ways_of_prediction_are_measured_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_inference, "CASES", (("nano", 64, (1,)),))
    options = Namespace(only=None, batch=None, rounds=1, skip_compile=True, skip_export=False)
    rows = list(detector_inference.measure(options))
    assert [row["way"] for row in rows] == ["eager", "channels_last", "ONNX Runtime"]
    assert rows[0]["times_faster"] == 1.0
    assert all(row["ms_per_tile"] > 0 for row in rows)
