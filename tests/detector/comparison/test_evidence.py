"""The script that makes the evidence puts tables where the document wants them, and changes nothing else."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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


def test_recipes_that_never_reach_the_target_say_so(evidence: ModuleType) -> None:
    arm = {"reached": None}
    ratios = dict.fromkeys(("seconds_ratio", "seconds_ratio_with_pretraining"), None)
    seed = {"seed": 0, "target_ap50": 0.5, "joint": {"reached": [10, 30.0, 0.5]}, "finetune": arm, **ratios}
    seed |= {"pretraining_seconds": 40, "peak_memory_ratio": 0.9, "peak_memory_ratio_without_libraries": 0.8}
    settings = {"share": 0.95, "joint": 10, "pretrain": 5, "finetune": 5, "every": 1}
    table = evidence.recipes_table({**settings, "seeds": [seed]})
    assert "| 0 | 0.500 | 30 | not reached | 40 |  |  | 0.90 | 0.80 |" in table
