"""What a comparison says of given figures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.detector import DetectorConfig
from ml_backend.detector.comparison import ComparisonConfig
from ml_backend.detector.comparison.plan import Kind, Run
from ml_backend.detector.comparison.report import Setting, to_markdown
from ml_backend.detector.comparison.run import FAILURE, RESULT
from ml_backend.detector.comparison.table import Row, read_rows
from ml_backend.detector.comparison.throughput import Load, Speed, measure, utilisation
from ml_backend.detector.comparison.verdict import difference, verdict

PAPERS = "residual_cross_attention"


def row(kind: Kind, fusion: str, ap50: dict[int, float], seconds: float = 10, total: float = 30) -> Row:
    """A row with given AP50 by seed."""
    results = {
        seed: {"ap": value / 2, "ap50": value, "ap30": value, "parameters": 4e6, "flops": 1e9, "seconds": seconds}
        | {"total_seconds": total, "peak_memory_mb": 900, "total_peak_memory_mb": 900, "memory_before_mb": 500}
        for seed, value in ap50.items()
    }
    name = f"{fusion}, {kind}" if fusion else f"{kind} alone"
    return Row(name, kind, fusion, ("rgb",) if not fusion else ("rgb", "dem"), "rgb", results, {}, {})


def test_a_difference_is_taken_seed_by_seed_with_students_interval() -> None:
    a = row("staged", PAPERS, {0: 0.5, 1: 0.7, 2: 0.9, 7: 0.1})
    b = row("staged", "stack", {0: 0.4, 1: 0.58, 2: 0.76})
    found = difference(a, b)
    assert found is not None
    assert (found.seeds, found.mean) == (3, pytest.approx(0.12))
    half = 4.302653 * 0.02 / 3**0.5  # t(0.975, 2) times the standard error
    assert (found.low, found.high) == (pytest.approx(0.12 - half), pytest.approx(0.12 + half))
    assert found.decided


def test_one_seed_decides_nothing() -> None:
    found = difference(row("staged", PAPERS, {0: 0.9}), row("staged", "stack", {0: 0.1}))
    assert found is not None
    assert not found.decided
    assert "one seed: no interval" in found.text()
    assert difference(row("staged", PAPERS, {0: 0.9}), row("staged", "stack", {1: 0.1})) is None


@pytest.mark.parametrize(
    ("papers", "stack", "conv", "expected"),
    [
        (
            (0.8, 0.82, 0.81),
            (0.6, 0.63, 0.6),
            (0.5, 0.51, 0.5),
            "holds by mean AP50 among the staged strategies: above 2",
        ),
        ((0.8, 0.82, 0.81), (0.9, 0.93, 0.91), (0.5, 0.51, 0.5), "does not hold by mean AP50"),
    ],
)
def test_the_papers_order_is_judged(
    papers: tuple[float, ...], stack: tuple[float, ...], conv: tuple[float, ...], expected: str
) -> None:
    rows = [
        row("staged", fusion, dict(enumerate(values)))
        for fusion, values in ((PAPERS, papers), ("stack", stack), ("conv", conv))
    ]
    (sentence,) = [text for text in verdict(rows) if "paper's order" in text]
    assert expected in sentence
    assert ("clearly below 1" in sentence) == (stack > papers)


def test_every_strategy_is_held_against_its_anchor() -> None:
    rows = [
        row("single", "", {0: 0.5, 1: 0.6}),
        row("staged", PAPERS, {0: 0.52, 1: 0.62}),
        row("staged", "stack", {0: 0.4, 1: 0.5}),
    ]
    (sentence,) = [text for text in verdict(rows) if "anchor" in text]
    assert f"{PAPERS}, staged +0.020" in sentence
    assert "stack, staged -0.100" in sentence


def test_strategies_are_held_against_their_own_anchor_and_among_themselves() -> None:
    def on_height(of: Row, name: str) -> Row:
        return replace(of, name=name, anchor="dem")

    rows = [
        row("single", "", {0: 0.2, 1: 0.3}),
        on_height(row("single", "", {0: 0.5, 1: 0.6}), "dem alone"),
        row("staged", PAPERS, {0: 0.3, 1: 0.4}),
        row("staged", "stack", {0: 0.2, 1: 0.3}),
        on_height(row("staged", PAPERS, {0: 0.55, 1: 0.65}), f"{PAPERS} on dem, staged"),
        on_height(row("staged", "stack", {0: 0.6, 1: 0.7}), "stack on dem, staged"),
    ]
    told = verdict(rows)
    held = [text for text in told if "Minus the anchor" in text]
    assert [text.split("(")[1].split(")")[0] for text in held] == ["dem alone", "single alone"]
    assert f"{PAPERS} on dem, staged +0.050" in held[0]
    assert f"{PAPERS}, staged +0.100" in held[1]
    order = [text for text in told if "paper's order" in text]
    assert "does not hold by mean AP50 among the staged strategies on dem:" in order[0]
    assert "holds by mean AP50 among the staged strategies on rgb:" in order[1]


def test_a_single_modality_measured_on_other_tiles_is_called_so(tmp_path: Path) -> None:
    def measured(name: str, tiles: int) -> dict[int, Path]:
        file = tmp_path / f"{name}.json"
        matches = {"tp": 1, "fp": 0, "fn": 0, "iou": 0.8, "region": None, "truths": 1}
        per_image = {f"tile{n}.tif": matches for n in range(tiles)}
        figures = dict.fromkeys(("ap", "ap50", "ap75", "ap30", "ar", "f1", "precision", "recall"), 0.5)
        figures |= {"best_score_threshold": 0.5, "n_tiles": tiles, "n_instances": tiles, "seconds": 1.0}
        file.write_text(json.dumps({**figures, "per_image": per_image}))
        return {0: file}

    single = row("single", "", {0: 0.5, 1: 0.6})
    fused = replace(row("staged", PAPERS, {0: 0.7, 1: 0.8}), evaluations=measured("fused", 3))
    sentence = verdict([replace(single, evaluations=measured("single", 2)), fused])[1]
    assert "But they were measured on different tiles (3 and 2)" in sentence
    assert "different tiles" not in verdict([single, fused])[1]


def test_fine_tuning_is_held_against_joint_training() -> None:
    rows = [
        row("staged", PAPERS, {0: 0.8, 1: 0.8}, seconds=20, total=60),
        row("joint", PAPERS, {0: 0.8, 1: 0.7}, seconds=50, total=50),
    ]
    told = verdict(rows)[-1]
    assert "0.40 of its seconds when the pretrained models exist, 1.20 with pretraining" in told


def test_a_row_counts_the_seeds_that_ended_well_and_names_the_others(tmp_path: Path) -> None:
    config = DetectorConfig(modalities=("rgb", "dem"), anchor="rgb")
    runs = [Run(f"joint-seed{seed}", "joint, residual", "joint", seed, config) for seed in (0, 1, 2)]
    for seed, ap50 in ((0, 0.5), (1, 0.7)):
        folder = tmp_path / f"joint-seed{seed}"
        folder.mkdir()
        (folder / RESULT).write_text(
            f'{{"test": {{"ap": 0.2, "ap50": {ap50}, "ap30": 0.8}}, "seconds": 5, "peak_memory_mb": 800, '
            '"memory_before_mb": 500, "parameters": 4, "flops": 9}'
        )
    (tmp_path / "joint-seed2").mkdir()
    (tmp_path / "joint-seed2" / FAILURE).write_text("The GPU's memory does not suffice.")
    (found,) = read_rows(tmp_path, runs)
    measured = found.measure("ap50")
    assert measured is not None
    assert (measured.mean, measured.deviation, measured.count) == (pytest.approx(0.6), pytest.approx(0.1 * 2**0.5), 2)
    text = to_markdown(ComparisonConfig(), [found], ["A sentence."], Setting("d", "1", "cpu", 1, 1))
    assert "| joint, residual | 0.200 ± 0.000 | 0.600 ± 0.141 |" in text
    assert "| 2 (1 failed) |" in text
    assert "- joint, residual, seed 2: The GPU's memory does not suffice." in text


@pytest.mark.slow
def test_a_benchmark_counts_images_and_operations() -> None:
    one, two = (measure(Load(modalities=n, image_size=64, batch_size=2, repeats=1, device="cpu")) for n in (1, 2))
    assert isinstance(one, Speed)
    assert one.parameters < two.parameters
    assert one.flops < two.flops < 2 * one.flops
    assert min(one.training, one.inference) > 0
    assert one.utilisation is None


def test_utilisation_needs_a_known_card() -> None:
    assert utilisation("NVIDIA H200", 989.4e9, 500) == pytest.approx(0.5)
    assert utilisation("GeForce of tomorrow", 1e12, 10) is None
