"""The command line: what a newcomer types, what it prints, and its exit codes."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ml_backend.detector import DetectorConfig, TrainResult, inspect
from ml_backend.detector.commands import command_line, compare, evaluation, export, main, prediction, training

QUICK = ["--iterations", "1", "--batch-size", "2", "--device", "cpu"]


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command."""
    (found,) = (a for a in command_line()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


COMMANDS = commands()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: python -m ml_backend.detector {command} " in printed
    assert str(COMMANDS[command].description).split(maxsplit=1)[0] in printed
    assert not [action.dest for action in COMMANDS[command]._actions if not (action.help or "").strip()]


def test_every_setting_of_a_training_is_an_option() -> None:
    options = {action.dest for action in COMMANDS["train"]._actions}
    assert set(DetectorConfig().to_json()) <= options


@pytest.mark.slow
def test_pretrain_then_finetune(dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--dataset", str(dataset_dir), *QUICK]
    sources = []
    for name in ("rgb", "relative_elevation"):
        out = tmp_path / name
        assert main(["pretrain", *options, "--modality", name, "--out", str(out)]) == 0
        sources += ["--from", f"{name}={out / 'checkpoint'}"]
    assert "val: ap 0." in capsys.readouterr().out
    assert main(["finetune", *options, *sources, "--out", str(tmp_path / "joint"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["iterations"] == 1
    card = inspect(printed["checkpoint"])
    assert set(card["init"]) == {"rgb", "relative_elevation"}
    assert card["config"]["modalities"] == ["rgb", "relative_elevation"]


def test_options_win_over_the_settings_file(dataset_dir: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"iterations": 7, "batch_size": 1, "seed": 5, "fusion": "stack"}))
    out = tmp_path / "out"
    arguments = ["train", "--dataset", str(dataset_dir), "--out", str(out), "--config", str(settings), *QUICK]
    assert main([*arguments, "--modalities", "rgb", "--json"]) == 0
    config = inspect(out / "checkpoint")["config"]
    assert (config["iterations"], config["batch_size"], config["seed"], config["fusion"]) == (1, 2, 5, "stack")
    assert config["modalities"] == ["rgb"]


def test_evaluate_predict_and_info(
    dataset_dir: Path, trained: TrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--dataset", str(dataset_dir), "--checkpoint", str(trained.checkpoint), "--device", "cpu"]
    assert main(["evaluate", *both, "--split", "val", "--out", str(tmp_path / "quality.json")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"mask AP50 +\d\.\d{3}  \d\.\d{3} to \d\.\d{3}\n", printed)
    assert len(json.loads((tmp_path / "quality.json").read_text())["per_image"]) == 3
    assert main(["predict", *both, "--split", "train", "--out", str(tmp_path / "found.json"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    tiles = json.loads((tmp_path / "found.json").read_text())["tiles"]
    assert summary["tiles"] == len(tiles) == 8
    assert summary["instances"] == sum(len(tile["detections"]) for tile in tiles) > 0
    assert main(["info", str(trained.checkpoint)]) == 0
    assert "modality    rgb (anchor): red, green, blue" in capsys.readouterr().out


def test_info_tells_what_a_card_says_and_does_without_the_rest(
    trained: TrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(trained.checkpoint)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"size        nano, \d+\.\d M parameters\n", told)
    assert "dataset     synthetic 1\ntrained     20 steps, seed 0, 20" in told
    assert re.search(r"val         ap \d\.\d{3} .*instances on 3 tiles", told)
    card = inspect(trained.checkpoint)
    kept = {key: card[key] for key in ("format", "config", "classes", "modalities")}
    bare = {**kept, "weights": {"sha256": card["weights"]["sha256"]}, "metrics": {"ap": None, "ap50": 0.5}}
    (tmp_path / "model.json").write_text(json.dumps(bare))
    assert main(["info", str(tmp_path)]) == 0
    assert "dataset     unknown\ntrained     ? steps" in (told := capsys.readouterr().out)
    assert "val         ap50 0.500  (? instances on ? tiles)" in told


def test_evaluate_writes_a_report_and_plain_json(
    dataset_dir: Path, trained: TrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new/report.html"
    arguments = ["--dataset", str(dataset_dir), "--checkpoint", str(trained.checkpoint), "--device", "cpu"]
    assert main(["evaluate", *arguments, "--report", str(page), "--bootstrap", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert printed["intervals"] == {}
    assert set(printed["breakdowns"]) == {"region", "size", "class", "modalities"}
    assert page.read_text().startswith("<!doctype html>")


def test_refusals_are_one_sentence_on_stderr_and_exit_1(
    dataset_dir: Path, trained: TrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, out = ["--dataset", str(dataset_dir)], ["--out", str(tmp_path / "out")]
    cases = [
        (["train", "--dataset", str(tmp_path), *out], "dataset.json is missing"),
        (["train", *dataset, *out, "--modalities", "ndvi"], "asks for modality 'ndvi'"),
        (["train", *dataset, *out, "--iterations", "0"], "`iterations` is 0"),
        (["train", *dataset, *out, "--device", "cuda:9"], "offers"),
        *(
            ([command, *dataset, *out, option, str(tmp_path / "none.json")], f"or write it (settings for {option})")
            for command, option in (("train", "--config"), ("compare", "--config"), ("stages", "--pretrain-config"))
        ),
        (["train", *dataset, "--out", str(dataset_dir / "dataset.json")], "dataset.json"),
        (["train", *dataset, *out, "--init", "a", "--pretrained", "b"], "--init replaces all weights"),
        (["pretrain", *dataset, *out, "--modality", "rgb", "--init", "a", "--pretrained", "b"], "--init replaces all"),
        (["finetune", *dataset, *out, "--from", "rgb=a", "--from", "rgb=b"], "--from gives both a and b for 'rgb'"),
        (["stages", *dataset, *out, "--from", "rgb=a", "--from", "rgb=b"], "--from gives both a and b for 'rgb'"),
        (["evaluate", *dataset, "--checkpoint", str(tmp_path)], "model.json is missing"),
        (
            ["predict", "--dataset", str(tmp_path), "--checkpoint", str(trained.checkpoint), *out],
            "dataset.json is missing",
        ),
        (["info", str(tmp_path)], "model.json is missing"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 1, arguments
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert message in printed.err
        assert printed.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_evaluate_refuses_unusable_files_before_any_work(
    option: str, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--dataset", str(dataset_dir), "--checkpoint", "none", option, str(tmp_path)]) == 1
    assert f"error: {option} {tmp_path} is a folder: give the name of a file." in capsys.readouterr().err


def test_export_refuses_an_unusable_folder_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file/onnx"
    assert main(["export", "--checkpoint", "none", "--out", str(out)]) == 1
    assert f"error: --out {out} cannot be written, since {out.parent} is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dataset", "d", "--out", "o"], "error: Interrupted: the same command continues"),
        (["compare", "--dataset", "d", "--out", "o"], "error: Interrupted: the same command continues"),
        (["predict", "--dataset", "d", "--checkpoint", "c", "--out", "o"], "error: Interrupted: the same command"),
        (["evaluate", "--dataset", "d", "--checkpoint", "c"], "error: Interrupted.\n"),
        (["export", "--checkpoint", "c", "--out", "o"], "error: Interrupted.\n"),
    ],
)
def test_interrupting_promises_to_go_on_only_where_it_does(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for module, function in ((training, "_train"), (compare, "_compare"), (prediction, "_predict")):
        monkeypatch.setattr(module, function, interrupted)
    for module, function in ((evaluation, "_evaluate"), (export, "_export")):
        monkeypatch.setattr(module, function, interrupted)
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["train"],
        ["train", "--dataset", "d", "--out", "o", "--size", "huge"],
        ["finetune", "--dataset", "d", "--out", "o", "--from", "rgb"],
        ["evaluate", "--dataset", "d", "--checkpoint", "c", "--bootstrap", "-1"],
        ["evaluate", "--dataset", "d", "--checkpoint", "c", "--max-detections", "0"],
        ["stages", "--dataset", "d", "--out", "o", "--slow", "rgb"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_it_runs_as_a_module() -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "ml_backend.detector", "--help"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_file_is_no_output_folder(
    command: str, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert main([command, "--dataset", str(dataset_dir), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert capsys.readouterr().err == f"error: --out {tmp_path / 'out'} is a file: give the name of a folder.\n"
    assert (tmp_path / "out").read_text() == "mine"
