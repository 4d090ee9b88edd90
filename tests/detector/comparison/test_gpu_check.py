"""The check for GPU machines runs where there is none, and no section costs another anything."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "gpu_check.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """scripts/gpu_check.py as a module."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def gpu_check(out: Path, *options: str) -> dict[str, dict[str, object]]:
    """Run it on the CPU at its smallest; the sections by name."""
    patient = ["--seconds", "9000"]  # budgets grow with it: what is tested here may share its processor
    command = [sys.executable, SCRIPT, "--small", "--device", "cpu", *patient, "--out", out, *options]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sections = json.loads((out / "results.json").read_text())["sections"]
    assert (out / "results.md").read_text() in done.stdout
    return {section["name"]: section for section in sections}


def test_it_runs_without_a_gpu_and_says_what_needs_one(tmp_path: Path) -> None:
    sections = gpu_check(tmp_path / "out", "--only", "machine", "memory")
    assert list(sections) == ["machine", "memory"]
    assert sections["machine"]["state"] == "done"
    assert (sections["memory"]["state"], sections["memory"]["why"]) == (
        "skipped", "it needs a GPU whose memory can be filled",
    )  # fmt: skip
    assert (tmp_path / "out" / "results.md").read_text().startswith("cpu, torch ")


@pytest.mark.slow
def test_all_of_it_runs_at_a_small_size(tmp_path: Path) -> None:
    sections = gpu_check(tmp_path / "out")
    states = {name: section["state"] for name, section in sections.items()}
    assert states == {
        "machine": "done", "speed nano 64": "done", "stock nano 64": "done", "resume": "done", "prediction": "done",
        "memory": "skipped",
    }  # fmt: skip
    resumed = sections["resume"]["values"]
    assert isinstance(resumed, dict)
    assert resumed["killed_before_its_end"]
    assert resumed["steps"] == [6, 6]
    assert resumed["ap50"] == pytest.approx(resumed["ap50_resumed"])  # on a CPU to the bit
    found = sections["prediction"]["values"]
    assert isinstance(found, dict)
    assert found["same_as_on_the_cpu"] == 1
    report = (tmp_path / "out" / "results.md").read_text()
    assert "| nano 64 px | float32 |" in report
    assert "against stock mmdet" in report


def test_a_section_that_fails_or_hangs_costs_only_itself(check: ModuleType, tmp_path: Path) -> None:
    child = tmp_path / "child"
    hang = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '99']); "
        f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(99)"
    )
    planned = [
        check.Section("broken", [sys.executable, "-c", "import sys; sys.exit('no such kernel')"], 60),
        check.Section("after", [sys.executable, "-c", "print('{}')"], 60, needs=("broken",)),
        check.Section("hanging", [sys.executable, "-c", hang], 2),
        check.Section("babbling", [sys.executable, "-c", "print('no result')"], 60),
        check.Section("fine", [sys.executable, "-c", "print('a warning'); print('{\"steps\": 3}')"], 60),
    ]
    results: list[object] = []
    for section in planned:
        results.append(check.run(section, results, dict(os.environ), left=100))
        check.write(tmp_path, results, 1.0)
    late = check.run(planned[-1], results, dict(os.environ), left=1)
    told = {r["name"]: (r["state"], r["why"]) for r in json.loads((tmp_path / "results.json").read_text())["sections"]}
    assert told["broken"] == ("failed", "no such kernel")
    assert told["after"] == ("skipped", "it needs the section 'broken'")
    assert told["hanging"] == ("failed", "it took longer than 2 s")
    assert told["babbling"][0] == "failed"
    assert told["fine"] == ("done", "")
    assert (late.state, late.why) == ("skipped", "no time was left")
    assert "no such kernel" in (tmp_path / "results.md").read_text()
    pid, deadline = int(child.read_text()), time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "what a section started outlived it"
        time.sleep(0.05)


def test_budgets_keep_within_the_lease_and_wheels_are_pinned(check: ModuleType, tmp_path: Path) -> None:
    whole = check.argparse.Namespace(small=False, device="cuda", only=None)
    names = [section.name for section in check.sections(whole, tmp_path)]
    assert {f"speed {size} {px}" for size in ("nano", "tiny") for px in (256, 512)} <= set(names)
    assert {"resume", "prediction", "memory", "stock nano 256", "stock tiny 512"} <= set(names)
    printed = subprocess.run([sys.executable, SCRIPT, "--list-wheels"], capture_output=True, text=True, check=True)
    assert [line.split("==")[0] for line in printed.stdout.split()] == list(check.WHEELS)
