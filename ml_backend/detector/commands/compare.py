"""``compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contracts.network import FUSIONS, SIZES
from ml_backend.detector.commands.options import Arguments, add_command, common_options
from ml_backend.detector.commands.paths import prepare_folder
from ml_backend.detector.commands.training_options import settings_of
from ml_backend.detector.comparison.plan import RECIPES, ComparisonConfig
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.errors import DetectorError
from ml_backend.detector.progress import ProgressBar

DEFAULTS = ComparisonConfig()
BASE = DEFAULTS.base


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "compare",
        _compare,
        "Train each modality alone, the fusion strategies and the training recipes over several seeds, and write the "
        "table of their quality and cost. The same command continues an interrupted comparison.",
    )
    add = parser.add_argument
    add("--dataset", type=Path, required=True, metavar="DIR", help="dataset directory")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the table, the plots and all trainings")
    add("--fusions", nargs="+", choices=FUSIONS, metavar="F", help=f"strategies (default: {', '.join(FUSIONS)})")
    add(
        "--recipes",
        nargs="+",
        choices=RECIPES,
        metavar="R",
        help="staged: unimodal pretraining, then fine-tuning; joint: from scratch (default: both)",
    )
    add(
        "--joint-fusions",
        nargs="+",
        choices=FUSIONS,
        metavar="F",
        help=f"strategies that are also trained jointly (default: {BASE.fusion})",
    )
    add("--seeds", nargs="+", type=int, metavar="N", help="repeat with each seed (default: 0 1 2)")
    add("--iterations", type=int, help=f"steps of fine-tuning (default: {BASE.iterations})")
    add(
        "--pretrain-iterations",
        type=int,
        help=f"steps of pretraining per modality; joint training takes both (default: {DEFAULTS.pretrain_iterations})",
    )
    add("--jobs", type=int, default=1, help="trainings run at the same time; they share the CPU's cores (default: 1)")
    add("--split", default="test", choices=("val", "test"), help="what AP is measured on (default: test)")
    add("--config", type=Path, metavar="FILE", help="JSON with any of train's settings; options take precedence")
    add("--size", choices=SIZES, help=f"model size (default: {BASE.size})")
    add("--modalities", nargs="+", metavar="M", help="modalities to use (default: all of the dataset)")
    add(
        "--anchors",
        nargs="+",
        metavar="M",
        help="modalities the others are added to; every strategy is trained with each (default: the dataset's)",
    )
    add("--batch-size", type=int, help=f"tiles per step (default: {BASE.batch_size})")
    add("--learning-rate", type=float, help=f"peak learning rate (default: {BASE.learning_rate:g})")
    add(
        "--image-size",
        type=int,
        help="resample: network pixels of the longest side of the largest tile (default: no resampling)",
    )
    common_options(parser)


def _compare(arguments: Arguments) -> None:
    from ml_backend.detector.comparison import compare

    asked = _asked(arguments)
    prepare_folder(arguments.out, "--out")
    progress = ProgressBar(arguments.json)
    result = compare(
        arguments.dataset,
        arguments.out,
        asked,
        device=arguments.device,
        jobs=arguments.jobs,
        progress=progress,
    )
    progress.close()
    if not any(row.results for row in result.rows if row.kind != "pretrain"):
        raise DetectorError(
            f"No training ended well, so there is nothing to compare: {result.files[0]} says why, and the same command "
            "tries again."
        )
    if arguments.json:
        print(json.dumps(result.data, indent=2))
        return
    print((arguments.out / "comparison.md").read_text(encoding="utf-8"))
    print("Written: " + ", ".join(str(file) for file in result.files))


def _asked(arguments: Arguments) -> ComparisonConfig:
    """The configuration given by the options."""
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key in ("pretrain_iterations", "fusions", "recipes", "joint_fusions", "anchors", "seeds", "split")
        if (value := getattr(arguments, key)) is not None
    }
    return ComparisonConfig(base=DetectorConfig.from_json(settings_of(arguments)), **options)
