"""The options of a training, in the groups of ``--help``, and the settings built from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from contracts.network import FUSIONS, SIZES
from ml_backend.detector.commands.options import Arguments, device_option, json_option
from ml_backend.detector.config import PARTS, PRECISIONS, DetectorConfig
from ml_backend.detector.dataset import read_json
from ml_backend.detector.errors import ConfigError

DEFAULTS = DetectorConfig()


def training_options(parser: argparse.ArgumentParser, modalities: bool = True) -> None:
    """Declare all options of a training.

    Args:
        parser: of the command.
        modalities: whether the training may use several modalities.
    """
    add = parser.add_argument
    add("--dataset", type=Path, required=True, metavar="DIR", help="dataset directory")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of this training and its result")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help='JSON with settings named as the options below, as {"batch_size": 8}; options take precedence',
    )
    add("--no-resume", action="store_true", help="discard an earlier training in --out instead of continuing it")
    json_option(parser)
    _model(parser.add_argument_group("model", "What is trained."), modalities)
    _data(
        parser.add_argument_group(
            "data", "Augmentation and sampling of training tiles; they are also always mirrored and rotated."
        )
    )
    _schedule(parser.add_argument_group("schedule", "How long, how fast, and which weights are kept."))
    _parts(
        parser.add_argument_group(
            "parts", "Parts that learn more slowly, or not at all; mostly useful after pretraining."
        )
    )
    _resources(
        parser.add_argument_group(
            "resources",
            "Device, precision and memory. With several GPUs, start it by "
            "'torchrun --nproc-per-node N -m ml_backend.detector': a step's tiles are divided among N processes.",
        )
    )


def _model(group: argparse._ArgumentGroup, modalities: bool) -> None:
    add = group.add_argument
    add("--size", choices=SIZES, help=f"model size (default: {DEFAULTS.size})")
    add(
        "--image-size",
        type=int,
        metavar="PX",
        help="resample all tiles by one factor: network pixels of the largest tile's longest side (default: off)",
    )
    add("--pretrained", metavar="FILE", help="MViTv2 weights for every backbone: a file or hf://owner/repository/file")
    if modalities:
        add("--modalities", nargs="+", metavar="M", help="modalities to use (default: all of the dataset)")
        add("--anchor", metavar="M", help="modality the others are added to (default: the dataset's)")
        add("--fusion", choices=FUSIONS, help=f"how modalities are joined (default: {DEFAULTS.fusion})")
        add(
            "--modality-dropout",
            type=float,
            metavar="SHARE",
            help=f"probability of hiding a modality, to cope without it (default: {DEFAULTS.modality_dropout})",
        )


def _data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--radiometric-jitter",
        type=float,
        metavar="SD",
        help="spread of random gain and offset, in standard deviations of the modality "
        f"(default: {DEFAULTS.radiometric_jitter})",
    )
    add(
        "--jitter-exempt",
        nargs="+",
        metavar="M",
        help="modalities without this jitter, because their absolute values carry meaning",
    )
    add("--scale-jitter", type=float, nargs=2, metavar=("LOW", "HIGH"), help="resize tiles at random (default: off)")
    add("--copy-paste", type=float, metavar="P", help="probability of pasting objects of other tiles (default: off)")
    add(
        "--empty-share",
        type=float,
        metavar="SHARE",
        help=f"share of tiles without objects (default: {DEFAULTS.empty_share})",
    )
    add(
        "--min-instance-pixels",
        type=int,
        metavar="N",
        help=f"smaller objects are ignored: neither positive nor background (default: {DEFAULTS.min_instance_pixels})",
    )


def _schedule(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--iterations", type=int, metavar="N", help=f"optimizer steps (default: {DEFAULTS.iterations})")
    add("--batch-size", type=int, metavar="N", help=f"tiles per forward pass (default: {DEFAULTS.batch_size})")
    add(
        "--accumulate",
        type=int,
        metavar="N",
        help=f"batches per optimizer step, to save memory (default: {DEFAULTS.accumulate})",
    )
    add("--learning-rate", type=float, metavar="R", help=f"peak learning rate (default: {DEFAULTS.learning_rate:g})")
    add("--warmup", type=int, metavar="N", help=f"steps of linear warmup (default: {DEFAULTS.warmup})")
    add("--weight-decay", type=float, metavar="R", help=f"AdamW's (default: {DEFAULTS.weight_decay})")
    add("--grad-clip", type=float, metavar="NORM", help=f"largest gradient norm (default: {DEFAULTS.grad_clip:g})")
    add("--ema", type=float, metavar="D", help="publish the weights' moving average with this decay, such as 0.999")
    add("--eval-interval", type=int, metavar="N", help="steps between evaluations on val, to keep the best weights")
    add("--patience", type=int, metavar="N", help="stop after N evaluations without a better mask AP50")
    add("--save-interval", type=int, metavar="N", help=f"steps between saves (default: {DEFAULTS.save_interval})")
    add("--seed", type=int, metavar="N", help=f"seed of everything random (default: {DEFAULTS.seed})")


def _parts(group: argparse._ArgumentGroup) -> None:
    names = f"a modality (its backbone), {', '.join(PARTS)}"
    group.add_argument("--freeze", nargs="+", metavar="PART", help=f"do not train {names}")
    group.add_argument(
        "--slow",
        action="append",
        type=_part_factor,
        metavar="PART=FACTOR",
        help="multiply the learning rate of a part, such as rgb=0.1; repeat for each",
    )
    group.add_argument(
        "--fusion-rate",
        type=float,
        metavar="FACTOR",
        help="multiply the learning rate of the fusion in fine-tuning from one detector per modality, where it alone "
        f"is not pretrained (default: {DEFAULTS.fusion_rate:g})",
    )


def _resources(group: argparse._ArgumentGroup) -> None:
    device_option(group)
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="auto is bfloat16 (faster, less memory) on GPUs that support it, float32 elsewhere (default: auto)",
    )
    group.add_argument(
        "--activation-checkpointing",
        action="store_const",
        const=True,
        help="recompute activations in the backward pass: less memory, more time",
    )


def _part_factor(text: str) -> tuple[str, float]:
    part, _, factor = text.partition("=")
    try:
        return part, float(factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form PART=FACTOR") from None


def read_settings(file: Path | None, option: str = "--config") -> dict[str, Any]:
    """Settings from a JSON file, if there is one.

    Raises:
        ConfigError: it is missing, or is not a JSON object.
    """
    if file is None:
        return {}
    settings = read_json(file, f"settings for {option}", ConfigError)
    if not isinstance(settings, dict):
        raise ConfigError(f"{file} must hold a JSON object of settings.")
    return settings


def settings_of(arguments: Arguments) -> dict[str, Any]:
    """The settings of --config, overridden by those of the options."""
    given = {key: getattr(arguments, key, None) for key in DEFAULTS.to_json()}
    return {**read_settings(arguments.config), **{key: value for key, value in given.items() if value is not None}}
