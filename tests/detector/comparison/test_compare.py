"""Comparisons: what is trained, that nothing is trained twice, and what the table says."""

import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from contracts.network import FUSIONS
from ml_backend.detector import ConfigError, DetectorConfig, DetectorError, read_dataset
from ml_backend.detector.commands import main
from ml_backend.detector.comparison import Comparison, ComparisonConfig, compare
from ml_backend.detector.comparison.plan import plan_runs
from ml_backend.detector.comparison.schedule import Schedule
from tests.detector.files import edit_json

QUICK = ComparisonConfig(
    base=DetectorConfig(iterations=1, batch_size=2, warmup=1, save_interval=1),
    pretrain_iterations=1,
    fusions=("residual_cross_attention", "stack"),
    recipes=("staged",),
    seeds=(0,),
)


@pytest.fixture(scope="module")
def compared(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A real comparison of one seed by the command: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("comparison")
    arguments = ["compare", "--dataset", str(dataset_dir), "--out", str(out), "--device", "cpu", "--seeds", "0"]
    arguments += ["--recipes", "staged", "--fusions", "residual_cross_attention", "stack", "--batch-size", "2"]
    settings = out / "settings.json"
    settings.write_text(json.dumps({"warmup": 1, "save_interval": 1}))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*arguments, "--config", str(settings), "--iterations", "1", "--pretrain-iterations", "1"])
    assert code == 0
    return out, printed.getvalue()


@pytest.fixture(scope="module")
def again(compared: tuple[Path, str], dataset_dir: Path) -> Comparison:
    """The same comparison once more."""
    return compare(dataset_dir, compared[0], QUICK, device="cpu")


def test_pretraining_is_done_once_per_seed_and_shared(dataset_dir: Path) -> None:
    asked = replace(QUICK, seeds=(0, 1), recipes=("staged", "joint"))
    runs = {run.name: run for run in plan_runs(asked, read_dataset(dataset_dir))}
    pretraining = [name for name, run in runs.items() if run.kind == "pretrain"]
    assert len(pretraining) == 4
    tuned = runs["staged-residual_cross_attention-seed1"]
    assert tuned.init == {
        "rgb": "pretrain-rgb-seed1",
        "relative_elevation": "pretrain-relative_elevation-seed1",
    }
    assert runs["staged-stack-seed1"].init == {"rgb": "pretrain-rgb-seed1"}
    assert runs["single-relative_elevation-seed0"].init == {"relative_elevation": "pretrain-relative_elevation-seed0"}
    assert runs["pretrain-rgb-seed0"].config.seed != tuned.config.seed


def test_every_weight_is_trained_for_the_same_number_of_steps(dataset_dir: Path) -> None:
    base = replace(QUICK.base, iterations=30)
    for recipes in (("staged", "joint"), ("joint",)):
        asked = replace(QUICK, base=base, pretrain_iterations=70, recipes=recipes)
        runs = {run.name: run for run in plan_runs(asked, read_dataset(dataset_dir))}
        for run in runs.values():
            if run.kind != "pretrain":
                before = {runs[name].config.iterations for name in run.init.values()}
                assert run.config.iterations + sum(before) == 100, run.name


def test_by_default_every_strategy_is_staged_and_the_default_one_joint(dataset_dir: Path) -> None:
    runs = plan_runs(ComparisonConfig(), read_dataset(dataset_dir))
    fusions = {kind: {r.config.fusion for r in runs if r.kind == kind} for kind in ("staged", "joint")}
    assert fusions == {"staged": set(FUSIONS), "joint": {DetectorConfig().fusion}}
    only_joint = plan_runs(ComparisonConfig(recipes=("joint",)), read_dataset(dataset_dir))
    assert {run.config.fusion for run in only_joint if run.kind == "joint"} == set(FUSIONS)
    assert not any(run.init for run in only_joint)


def test_every_strategy_is_trained_with_each_anchor(dataset_dir: Path) -> None:
    asked = ComparisonConfig(seeds=(0,), fusions=("conv", "stack"), anchors=("rgb", "relative_elevation"))
    runs = {run.row: run for run in plan_runs(asked, read_dataset(dataset_dir)) if run.kind in ("staged", "joint")}
    assert {row: run.config.anchor for row, run in runs.items()} == {
        "conv on rgb, staged": "rgb",
        "stack on rgb, staged": "rgb",
        "conv on rgb, joint": "rgb",
        "conv on relative_elevation, staged": "relative_elevation",
        "stack on relative_elevation, staged": "relative_elevation",
        "conv on relative_elevation, joint": "relative_elevation",
    }
    assert runs["stack on relative_elevation, staged"].init == {
        "relative_elevation": "pretrain-relative_elevation-seed0"
    }
    assert len({run.name for run in runs.values()}) == len(runs)
    with pytest.raises(ConfigError, match="anchors name 'dem'"):
        plan_runs(replace(asked, anchors=("dem",)), read_dataset(dataset_dir))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusions": ("magic",)}, "fusions name 'magic'"),
        ({"fusions": ()}, "fusions are ()"),
        ({"seeds": (0, 0)}, "seeds are (0, 0)"),
        ({"recipes": ("slow",)}, "recipes name 'slow'"),
        ({"joint_fusions": ("stack",), "fusions": ("residual_cross_attention",)}, "joint_fusions name 'stack'"),
        ({"anchors": ("rgb", "rgb")}, "anchors are"),
        ({"pretrain_iterations": 0}, "pretrain_iterations = 0"),
    ],
)
def test_plans_that_make_no_sense_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ComparisonConfig(**change)
    assert message in str(refused.value)


def test_one_modality_is_nothing_to_compare(generate: Callable[..., Path], tmp_path: Path) -> None:
    dataset = generate(tmp_path / "data", train=2, val=1, test=1, size=64, modalities=("rgb",))
    with pytest.raises(ConfigError, match="at least two modalities"):
        compare(dataset, tmp_path / "out", QUICK, device="cpu")


def share_tiles(root: Path, first: str, second: str) -> None:
    shutil.copy(root / f"annotations/{first}.json", root / f"annotations/{second}.json")


def empty_test_split(root: Path) -> None:
    (root / "annotations/test.json").write_text(json.dumps({"images": [], "annotations": []}))


def no_elevation_to_test_on(root: Path) -> None:
    for file in (root / "chips/relative_elevation").glob("test_*.tif"):
        file.unlink()


def truncated_chip(root: Path) -> None:
    (root / "chips/rgb/test_0001.tif").write_bytes(b"II*\0broken")


BEFORE: dict[str, tuple[Callable[[Path], object], dict, str]] = {
    "test tiles are training tiles": (lambda r: share_tiles(r, "train", "test"), {}, r"test\.json: tile .*train\.json"),
    "test tiles are validation tiles": (lambda r: share_tiles(r, "val", "test"), {}, r"test\.json: tile .*val\.json"),
    "nothing to measure on": (empty_test_split, {}, r"test\.json lists no tile with a chip of modality 'rgb'"),
    "a modality has nothing to be measured on": (no_elevation_to_test_on, {}, "no tile with a chip of modality 'rel"),
    "no such split": (lambda r: (r / "annotations/test.json").unlink(), {}, r"test\.json is missing"),
    "nothing is large enough": (
        lambda r: None,
        {"asked": replace(QUICK, base=replace(QUICK.base, min_instance_pixels=4096))},
        r"train\.json: no object covers 4096 pixels \(min_instance_pixels\) .* on tiles with rgb, so",
    ),
    "nothing to choose weights by": (
        lambda r: edit_json(r / "annotations/val.json", lambda d: d.update(annotations=[])),
        {"asked": replace(QUICK, base=replace(QUICK.base, eval_interval=1))},
        r"val\.json holds no objects on tiles with rgb, so evaluations",
    ),
    "a split that is not asked for has training tiles": (
        lambda r: share_tiles(r, "train", "test"),
        {"asked": replace(QUICK, split="val")},
        r"test\.json: tile .*train\.json",
    ),
    "a broken chip": (truncated_chip, {}, r"rgb/test_0001\.tif cannot be read"),
    "no such device": (lambda r: None, {"device": "cuda:9"}, "The device 'cuda:9'"),
    "a negative seed": (
        lambda r: None,
        {"asked": replace(QUICK, seeds=(0, -1))},
        "`seed` is -1; it must be",
    ),
    "a seed too large": (
        lambda r: None,
        {"asked": replace(QUICK, seeds=(2**53 - 1,))},
        "`seed` is .*; it must be",
    ),
}


@pytest.mark.parametrize("case", BEFORE)
def test_nothing_is_trained_before_everything_is_checked(case: str, own_dataset_dir: Path, tmp_path: Path) -> None:
    spoil, options, message = BEFORE[case]
    spoil(own_dataset_dir)
    with pytest.raises(DetectorError, match=message) as refused:
        compare(own_dataset_dir, tmp_path / "out", **{"asked": QUICK, "device": "cpu", **options})
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_comparison_in_which_nothing_ended_well_exits_1(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Schedule, "run_all", lambda schedule, runs: None)
    arguments = ["compare", "--dataset", str(dataset_dir), "--out", str(tmp_path), "--device", "cpu", "--seeds", "0"]
    assert main([*arguments, "--recipes", "staged", "--fusions", "stack"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: No training ended well")
    assert "comparison.md says why" in printed.err
    assert printed.err.count("\n") == 1
    assert "It was not run." in (tmp_path / "comparison.md").read_text()


def test_the_table_has_a_row_for_everything(compared: tuple[Path, str]) -> None:
    out, printed = compared
    names = [
        "rgb alone",
        "relative_elevation alone",
        "residual_cross_attention, staged",
        "stack, staged",
        "rgb, pretraining",
        "relative_elevation, pretraining",
    ]
    rows = list(csv.DictReader((out / "comparison.csv").open()))
    assert [row["row"] for row in rows] == names
    for row in rows:
        assert 0 <= float(row["ap_mean"]) <= float(row["ap50_mean"]) <= 1
        assert float(row["flops_mean"]) > 1e8
        assert float(row["peak_memory_mb_mean"]) > 100
        assert row["seeds"] == "1"
        assert row["ap50_sd"] == row["failures"] == ""
    text = (out / "comparison.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(names)
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert [row["name"] for row in json.loads((out / "comparison.json").read_text())["rows"]] == names
    assert text in printed
    assert "Best by mean AP50" in printed


def test_costs_are_those_of_the_models(again: Comparison) -> None:
    rows = {row.name: row for row in again.rows}
    single, stack, residual = (
        rows[name].results[0] for name in ("rgb alone", "stack, staged", "residual_cross_attention, staged")
    )
    assert single["parameters"] < stack["parameters"] < residual["parameters"]
    assert single["flops"] < stack["flops"] < residual["flops"]
    own, pretraining = (
        residual["seconds"],
        [rows[f"{m}, pretraining"].results[0] for m in ("rgb", "relative_elevation")],
    )
    assert residual["total_seconds"] == pytest.approx(own + sum(p["seconds"] for p in pretraining))
    assert residual["total_peak_memory_mb"] >= max(p["peak_memory_mb"] for p in pretraining)
    assert stack["total_seconds"] == pytest.approx(stack["seconds"] + pretraining[0]["seconds"])


def test_the_pictures_are_pictures(compared: tuple[Path, str]) -> None:
    for name in ("quality", "cost"):
        with Image.open(compared[0] / f"{name}.png") as picture:
            assert picture.width > 800
            assert len(set(picture.convert("RGB").resize((200, 200)).getdata())) > 10
        assert "<svg" in (compared[0] / f"{name}.svg").read_text()


def test_the_same_comparison_trains_nothing_again(compared: tuple[Path, str], dataset_dir: Path) -> None:
    out = compared[0]
    before = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/result.json")}
    shares: list[float] = []
    compare(dataset_dir, out, QUICK, device="cpu", progress=lambda share, text: shares.append(share))
    assert {file: file.stat().st_mtime_ns for file in out.glob("runs/*/result.json")} == before
    assert not shares


def test_other_settings_in_the_same_folder_are_refused(compared: tuple[Path, str], dataset_dir: Path) -> None:
    with pytest.raises(ConfigError, match="holds a comparison with other settings"):
        compare(dataset_dir, compared[0], replace(QUICK, pretrain_iterations=2), device="cpu")


@pytest.mark.slow
def test_a_training_that_fails_becomes_a_row_and_is_tried_again(
    compared: tuple[Path, str], dataset_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(compared[0], out)
    asked = replace(QUICK, fusions=("stack",))
    result = out / "runs" / "staged-stack-seed0" / "result.json"
    kept = result.read_text()
    result.unlink()
    card = out / "runs" / "staged-stack-seed0" / "training" / "checkpoint" / "model.json"
    whole = card.read_text()
    card.write_text(json.dumps({**json.loads(whole), "format": "of tomorrow"}))
    failed = compare(dataset_dir, out, asked, device="cpu")
    row = next(row for row in failed.rows if row.fusion == "stack")
    assert not row.results
    assert "not a detector card" in row.failures[0]
    assert failed.rows[0].results, "the others have their results"
    card.write_text(whole)
    healed = compare(dataset_dir, out, asked, device="cpu")
    assert not any(row.failures for row in healed.rows)
    assert json.loads(result.read_text())["test"]["ap50"] == json.loads(kept)["test"]["ap50"]


@pytest.mark.slow
def test_heirs_of_a_failed_pretraining_say_so(dataset_dir: Path, tmp_path: Path) -> None:
    asked = replace(QUICK, fusions=("stack",), base=replace(QUICK.base, learning_rate=1e30, warmup=0, iterations=4))
    shares: list[float] = []
    asked = replace(asked, pretrain_iterations=4)
    result = compare(dataset_dir, tmp_path, asked, device="cpu", progress=lambda share, text: shares.append(share))
    failures = {row.name: row.failures[0] for row in result.rows}
    assert "stopped being a number" in failures["rgb, pretraining"]
    assert failures["stack, staged"] == "It starts from pretrain-rgb-seed0, which failed."
    text = (tmp_path / "comparison.md").read_text()
    assert "| stack, staged | failed: It starts from" in text
    assert "- rgb, pretraining, seed 0: " in text
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert result.verdict == ("No training ended well: there is nothing to compare.",)


@pytest.mark.slow
def test_killed_anywhere_the_same_command_continues(dataset_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ml_backend.detector", "compare", "--dataset", str(dataset_dir), "--json"]
    command += ["--out", str(tmp_path), "--recipes", "staged", "--fusions", "stack", "--seeds", "0", "--device", "cpu"]
    command += ["--iterations", "3", "--pretrain-iterations", "3", "--batch-size", "2"]
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    first = tmp_path / "runs" / "pretrain-rgb-seed0" / "result.json"
    deadline = time.monotonic() + 120
    while not first.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    stamp = first.stat().st_mtime_ns
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == stamp
    assert not any(row["failures"] for row in json.loads(done.stdout)["rows"])
