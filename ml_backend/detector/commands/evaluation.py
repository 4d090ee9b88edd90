"""``evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.detector.commands.options import (
    Arguments,
    add_command,
    common_options,
    dataset_options,
    search_options,
    whole_number,
)
from ml_backend.detector.commands.paths import prepare_files, write
from ml_backend.detector.progress import ProgressBar

if TYPE_CHECKING:
    from ml_backend.detector.evaluation import Evaluation


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "Measure a checkpoint on a split: AP of outlines and boxes, F1 and calibration, with intervals.",
    )
    dataset_options(parser)
    parser.add_argument(
        "--max-detections", type=whole_number(1), default=100, help="instances counted per tile (default: 100)"
    )
    search_options(parser)
    parser.add_argument(
        "--bootstrap",
        type=whole_number(0),
        default=1000,
        metavar="N",
        help="bootstrap samples of tiles for the intervals; 0 for none (default: 1000)",
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="also write the full result, with that of each image, as JSON"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="also write a self-contained HTML page with curves and pictures"
    )
    common_options(parser)


def _evaluate(arguments: Arguments) -> None:
    from ml_backend.detector.evaluation import Search, evaluate

    prepare_files(out=arguments.out, report=arguments.report)
    progress = ProgressBar(arguments.json)
    result = evaluate(
        arguments.dataset,
        arguments.checkpoint,
        split=arguments.split,
        device=arguments.device,
        progress=progress,
        max_detections=arguments.max_detections,
        search=Search(arguments.window, arguments.overlap, arguments.tta),
        resamples=arguments.bootstrap,
        seed=arguments.seed,
        report=arguments.report,
    )
    progress.close()
    if arguments.out:
        write(arguments.out, json.dumps(result.to_json(), indent=2))
    print(json.dumps(result.to_json(), indent=2) if arguments.json else evaluation_table(result))


def evaluation_table(result: Evaluation) -> str:
    """Metric, value and 95 % interval, one per line, in groups; metrics without a value are left out."""
    from ml_backend.detector.evaluation import METRICS

    lines, group = [f"{result.n_instances} instances on {result.n_tiles} tiles"], ""
    if given := result.given_search:
        lines.append(f"predicted with {given}; threshold and temperature were determined without")
    for name, metric in METRICS.items():
        value, interval = getattr(result, name), result.intervals.get(name)
        if value is None:
            continue
        if metric.group != group:
            group = metric.group
            lines += ["", f"{group:<44}value" + ("  95 % interval" if result.intervals else "")]
        between = f"  {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        lines.append(f"  {metric.label:<42}{value:.3f}{between}")
    return "\n".join(lines)
