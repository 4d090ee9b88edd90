"""What a worker imports before its jobs need it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import LazySettings

from thawloop.core.jobs import worker

PROGRAM = """
import json, os, sys
import django
django.setup()
from thawloop.core.jobs.worker import import_ahead
import_ahead("gpu")
imported = "mmdet" in sys.modules
import torch
reading, writing = os.pipe()
if os.fork() == 0:  # as RQ does for a job
    product = torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    os.write(writing, str(float(product.sum())).encode())
    os._exit(0)
os.wait()
print(json.dumps([imported, float(os.read(reading, 100))]))
"""


@pytest.mark.slow
def test_a_worker_has_the_network_ready_and_its_jobs_can_compute() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).resolve().parents[2] / "platform",
        env={**os.environ, "THAWLOOP_DEVICE": "cpu", "PYTHONPATH": ".:.."},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True, 1e9]


@pytest.mark.parametrize(
    ("device", "file", "expected"),
    [
        ("auto", "null", ["wanted"]),
        ("auto", "nvidia0", []),
        ("auto", "dxg", []),
        ("cuda:1", "nvidiactl", []),
        ("cpu", "nvidia0", ["wanted"]),
    ],
)
def test_nothing_is_imported_ahead_where_jobs_may_use_a_gpu(
    device: str,
    file: str,
    expected: list[str],
    tmp_path: Path,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / file).touch()
    settings.THAWLOOP_DEVICE = device
    settings.THAWLOOP_IMPORT_AHEAD = {"gpu": ("wanted",), "raster": ("other",)}
    imported: list[str] = []
    monkeypatch.setattr(worker.importlib, "import_module", imported.append)
    worker.import_ahead("gpu", tmp_path)
    worker.import_ahead("default", tmp_path)
    assert imported == expected


def test_a_worker_without_the_network_serves_what_needs_none(
    tmp_path: Path, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.THAWLOOP_IMPORT_AHEAD = {"gpu": ("thawloop.no_such_module",)}
    told: list[str] = []
    monkeypatch.setattr(worker.log, "warning", lambda *_, error, **__: told.append(error))
    worker.import_ahead("gpu", tmp_path)
    assert told == ["No module named 'thawloop.no_such_module'"]
