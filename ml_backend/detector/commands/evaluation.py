"""``evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.commands.options import Arguments, add_command, common_options, dataset_options, metrics_text
from ml_backend.detector.commands.progress import Bar


def add(commands: Any) -> None:
    """Declare the command."""
    judged = add_command(commands, "evaluate", _evaluate, "Measure a checkpoint on a split: mask AP, AP50, AP30, F1.")
    dataset_options(judged)
    judged.add_argument("--max-detections", type=int, default=100, help="instances counted per tile (default: 100)")
    judged.add_argument("--out", type=Path, metavar="FILE", help="also write everything, per image too, as JSON")
    common_options(judged)


def _evaluate(arguments: Arguments) -> None:
    from ml_backend.detector.evaluation import evaluate

    progress = Bar(arguments.json)
    result = evaluate(
        arguments.dataset,
        arguments.checkpoint,
        split=arguments.split,
        device=arguments.device,
        progress=progress,
        max_detections=arguments.max_detections,
    )
    progress.close()
    if arguments.out:
        replace_file(arguments.out, json.dumps(result.to_json(), indent=2).encode())
    print(json.dumps(result.to_json(), indent=2) if arguments.json else metrics_text(result.summary()))
