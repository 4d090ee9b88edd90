"""``benchmark``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from contracts.network import FUSIONS, SIZES
from ml_backend.detector.commands.options import Arguments, add_command, common_options, whole_number
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.errors import DeviceError
from ml_backend.detector.progress import ProgressBar

SOURCE_ROOT = Path(__file__).resolve().parents[3]
DEFAULTS = DetectorConfig()


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "benchmark",
        _benchmark,
        "Measure images per second and memory of training and inference on this machine, on generated tiles.",
    )
    add = parser.add_argument
    add("--size", choices=SIZES, default=DEFAULTS.size, help=f"model size (default: {DEFAULTS.size})")
    add("--fusion", choices=FUSIONS, default=DEFAULTS.fusion, help=f"default: {DEFAULTS.fusion}")
    add(
        "--modalities",
        nargs="+",
        type=whole_number(1),
        default=[1, 2],
        metavar="N",
        help="numbers of modalities (default: 1 2)",
    )
    add("--image-size", type=whole_number(1), default=128, help="side of the tiles in pixels (default: 128)")
    add("--batch-size", type=whole_number(1), default=4, help="tiles per batch (default: 4)")
    add("--repeats", type=whole_number(1), default=8, help="repetitions; the median is reported (default: 8)")
    add("--seed", type=whole_number(0), default=0, help="seed of weights, pixels and sampling (default: 0)")
    common_options(parser)


def _benchmark(arguments: Arguments) -> None:
    progress = ProgressBar(arguments.json)
    rows = []
    for done, count in enumerate(arguments.modalities):
        progress(done / len(arguments.modalities), f"{count} modalities")
        rows.append(_measure_apart(arguments, count))
    progress(1.0, "done")
    progress.close()
    print(json.dumps(rows, indent=2) if arguments.json else _table(rows))


def _measure_apart(arguments: Arguments, count: int) -> dict[str, Any]:
    """Measure in a separate process, so that its peak memory is that of this model."""
    names = ("size", "fusion", "image_size", "batch_size", "repeats", "device", "seed")
    load = {**{name: getattr(arguments, name) for name in names}, "modalities": count}
    path = os.pathsep.join(filter(None, (str(SOURCE_ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ml_backend.detector.comparison.throughput", json.dumps(load)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"its process ended with code {done.returncode}"]
        raise DeviceError(f"Measuring {count} modalities failed ({lines[-1]}): try a smaller batch or image size.")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _table(rows: list[dict[str, Any]]) -> str:
    first = rows[0]
    head = f"{'modalities':>10}{'M params':>10}{'train img/s':>13}{'infer img/s':>13}{'found/tile':>12}{'peak MB':>9}"
    lines = [f"{first['device']}, {first['precision']} in training", f"{head}{'GFLOP/img':>11}{'MFU':>8}"]
    for row in rows:
        share = f"{row['utilisation']:.1%}" if row["utilisation"] is not None else ""
        lines.append(
            f"{row['modalities']:>10}{row['parameters'] / 1e6:>10.2f}{row['training']:>13.2f}{row['inference']:>13.2f}"
            f"{row['found']:>12.1f}{row['peak_memory_mb']:>9.0f}{row['flops'] / 1e9:>11.2f}{share:>8}"
        )
    return "\n".join(lines)
