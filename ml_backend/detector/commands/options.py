"""Options that commands share, and metrics as text."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.dataset import SPLITS

Arguments = argparse.Namespace


def add_command(commands: Any, name: str, function: Callable[[Arguments], None], text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(command=function)
    return command


def dataset_options(parser: argparse.ArgumentParser, checkpoint: bool = True) -> None:
    """Options for the dataset, its split and the checkpoint."""
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="dataset directory")
    if checkpoint:
        parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--split", default="test", choices=SPLITS, help="default: test")


def search_options(parser: argparse.ArgumentParser) -> None:
    """Options for windows and test-time augmentation."""
    add = parser.add_argument
    add(
        "--window",
        type=int,
        metavar="PX",
        help="cut larger tiles into windows of this many pixels (default: the training tiles' size)",
    )
    add("--overlap", type=int, metavar="PX", help="pixels that windows share (default: a fourth of the window)")
    add(
        "--tta",
        default="none",
        choices=("none", "flips", "d4"),
        help="test-time augmentation: average over mirrored (4 x the time) or also rotated (8 x) tiles (default: none)",
    )


def common_options(parser: argparse.ArgumentParser) -> None:
    """Options for the device and the output."""
    device_option(parser)
    json_option(parser)


def device_option(options: argparse._ActionsContainer) -> None:
    """The option for the device."""
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def json_option(options: argparse._ActionsContainer) -> None:
    """The option for JSON output."""
    options.add_argument("--json", action="store_true", help="print the result as JSON and no progress")


def whole_number(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least ``least``."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"give at least {least}")
        return value

    return number


def metrics_text(metrics: dict[str, Any]) -> str:
    """The main metrics of an evaluation in one line; older evaluations lack some."""
    names = ("ap", "ap50", "ap75", "ap30", "ar", "f1", "precision", "recall", "best_score_threshold")
    figures = "  ".join(f"{n} {metrics[n]:.3f}" for n in names if isinstance(metrics.get(n), int | float))
    return f"{figures}  ({metrics.get('n_instances', '?')} instances on {metrics.get('n_tiles', '?')} tiles)"
