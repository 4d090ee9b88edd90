"""The platform's benchmarks run, each on as little as it takes."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("acquisition --tiles 200 --labelled 20 --picks 5", "same_picks_as_full_table"),
        ("chips --tiles 20 --rounds 1 --side 1500", "ChipReader"),
        ("ingest --side 1200", "tile again seconds"),
        ("prediction --tiles 4 --rounds 1", "median ratio"),
        ("release --tiles 16 --labels 20", "naive loop / materialise"),
        ("scale --sizes 100 400", "acquisition of 50"),
        ("vectors --labels 300", "export gpkg"),
    ],
)
def test_a_benchmark_prints_its_table(command: str, said: str) -> None:
    program, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{program}", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
