"""The table of `make coverage`."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "coverage_by_room.py"


def run(folder: Path, files: dict[str, tuple[int, int]]) -> "subprocess.CompletedProcess[str]":
    """The script on a report of these files: (statements, statements that ran)."""
    report = folder / "coverage.json"
    summaries = {
        path: {"summary": {"num_statements": statements, "covered_lines": ran}}
        for path, (statements, ran) in files.items()
    }
    report.write_text(json.dumps({"files": summaries}))
    return subprocess.run([sys.executable, str(SCRIPT), str(report)], capture_output=True, text=True, check=False)


def test_each_room_has_a_line_and_a_room_inside_another_is_counted_once(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        {
            "platform/thawloop/core/roles.py": (100, 90),
            "platform/thawloop/settings.py": (10, 10),
            "labeling/jobs.py": (30, 0),
            "labeling/labelstudio/client.py": (50, 25),
            "labeling/labelstudio/config.py": (50, 50),
            "demo/__init__.py": (0, 0),
        },
    )
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["room", "files", "statements", "ran"],
        ["thawloop.core", "1", "100", "90.0", "%"],
        ["thawloop", "1", "10", "100.0", "%"],
        ["labeling.labelstudio", "2", "100", "75.0", "%"],
        ["labeling", "1", "30", "0.0", "%"],
        ["demo", "1", "0", "-"],
        ["all", "6", "240", "72.9", "%"],
    ]


def test_a_file_of_no_room_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, {"attic/old.py": (1, 1)})
    assert done.returncode == 1
    assert "attic/old.py belongs to no room" in done.stderr
