"""``train``, ``pretrain``, ``finetune``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.detector.commands.options import Arguments, add_command, common_options, metrics_text
from ml_backend.detector.commands.progress import Bar
from ml_backend.detector.config import FUSIONS, PARTS, SIZES, DetectorConfig
from ml_backend.detector.dataset import read_json
from ml_backend.detector.errors import ConfigError

if TYPE_CHECKING:
    from ml_backend.detector.training import TrainResult

DEFAULTS = DetectorConfig()


def add(commands: Any) -> None:
    """Declare the commands."""
    joint = add_command(
        commands, "train", _train, "Train on all chosen modalities together, from scratch or a checkpoint."
    )
    training_options(joint)
    joint.add_argument("--modalities", nargs="+", metavar="M", help="modalities to use (default: all of the dataset)")
    joint.add_argument("--init", type=Path, metavar="CHECKPOINT", help="continue from a checkpoint of the same model")

    single = add_command(commands, "pretrain", _pretrain, "Train a detector on one modality alone, for 'finetune'.")
    training_options(single)
    single.add_argument("--modality", required=True, metavar="M", help="the modality")
    single.add_argument("--init", type=Path, metavar="CHECKPOINT", help="continue from a checkpoint of that modality")

    tuned = add_command(
        commands, "finetune", _finetune, "Join detectors pretrained per modality and train them together."
    )
    training_options(tuned)
    tuned.add_argument("--modalities", nargs="+", metavar="M", help="modalities to use (default: all of the dataset)")
    tuned.add_argument(
        "--from",
        dest="sources",
        action="append",
        required=True,
        type=_named_path,
        metavar="M=CHECKPOINT",
        help="pretrained checkpoint of a modality; repeat for each (the anchor's is needed: it brings neck and heads)",
    )


def training_options(parser: argparse.ArgumentParser) -> None:
    """What a training may be told."""
    add = parser.add_argument
    add("--dataset", type=Path, required=True, metavar="DIR", help="dataset directory")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of this training; DIR/checkpoint is the result")
    add("--config", type=Path, metavar="FILE", help="JSON with any of the settings; options given here win")
    add("--size", choices=SIZES, help=f"model size (default: {DEFAULTS.size})")
    add("--fusion", choices=FUSIONS, help=f"how modalities are joined (default: {DEFAULTS.fusion})")
    add("--anchor", metavar="M", help="modality the others are added to (default: the dataset's)")
    add("--iterations", type=int, help=f"optimizer steps (default: {DEFAULTS.iterations})")
    add("--batch-size", type=int, help=f"tiles per step (default: {DEFAULTS.batch_size})")
    add("--learning-rate", type=float, help=f"peak learning rate (default: {DEFAULTS.learning_rate:g})")
    add("--warmup", type=int, help=f"steps of warmup (default: {DEFAULTS.warmup})")
    add("--image-size", type=int, help="resample tiles to this many pixels (default: their own size)")
    add("--pretrained", metavar="FILE", help="MViTv2 weights for every backbone: a file or hf://owner/repository/file")
    add("--freeze", nargs="+", metavar="PART", help=f"keep the weights of: modalities, {', '.join(PARTS)}")
    add("--modality-dropout", type=float, help=f"share of hidden modalities (default: {DEFAULTS.modality_dropout})")
    add("--eval-interval", type=int, help="steps between evaluations on val, to keep the best (default: at the end)")
    add("--seed", type=int, help=f"seed of everything random (default: {DEFAULTS.seed})")
    add("--no-resume", action="store_true", help="discard an earlier training in --out instead of continuing it")
    common_options(parser)


def _named_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form MODALITY=CHECKPOINT")
    return name, Path(path)


def _config(arguments: Arguments, **fixed: Any) -> DetectorConfig:
    """Settings from --config, then from options, then those that the command fixes."""
    settings: dict[str, Any] = {}
    if arguments.config:
        settings = read_json(arguments.config, "the --config file")
        if not isinstance(settings, dict):
            raise ConfigError(f"{arguments.config} must hold a JSON object of settings.")
    given = {key: getattr(arguments, key, None) for key in DEFAULTS.to_json()}
    settings.update({key: value for key, value in given.items() if value is not None})
    return DetectorConfig.from_json({**settings, **fixed})


def _train(arguments: Arguments) -> None:
    _run(arguments, _config(arguments), arguments.init)


def _pretrain(arguments: Arguments) -> None:
    _run(arguments, _config(arguments, modalities=[arguments.modality], anchor=arguments.modality), arguments.init)


def _finetune(arguments: Arguments) -> None:
    _run(arguments, _config(arguments), dict(arguments.sources))


def _run(arguments: Arguments, config: DetectorConfig, init: Any) -> None:
    from ml_backend.detector.training import train

    progress = Bar(arguments.json)
    result = train(
        arguments.dataset,
        arguments.out,
        config,
        init=init,
        device=arguments.device,
        progress=progress,
        resume=not arguments.no_resume,
    )
    progress.close()
    print(json.dumps(result.to_json(), indent=2) if arguments.json else _result_text(result))


def _result_text(result: TrainResult) -> str:
    quality = metrics_text(result.metrics) if result.metrics else "no validation split"
    return (
        f"{result.checkpoint}: {result.iterations} steps in {result.seconds:.0f} s, "
        f"peak memory {result.peak_memory_mb:.0f} MB\nval: {quality}"
    )
