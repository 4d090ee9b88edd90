"""``export``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contracts.dataset import SPLITS
from ml_backend.detector.checkpoint import open_checkpoint
from ml_backend.detector.commands.options import Arguments, add_command
from ml_backend.detector.commands.paths import prepare_parent
from ml_backend.detector.dataset import read_dataset
from ml_backend.detector.progress import ProgressBar

COMPARED = 8


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "export",
        _export,
        "Write a checkpoint as ONNX graphs for CPU serving, after checking that they give the same detections. "
        "'predict' and 'evaluate' accept the folder like a checkpoint.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; must not exist")
    add(
        "--size",
        type=_size,
        metavar="WxH",
        help="size in pixels of the tiles it accepts; larger ones are cut (default: the dataset's or the training's)",
    )
    add("--dataset", type=Path, metavar="DIR", help="compare on tiles of this dataset instead of generated ones")
    add("--split", default="test", choices=SPLITS, help="of the dataset (default: test)")
    add("--json", action="store_true", help="print the comparison as JSON and no progress")


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.lower().partition("x")
    if not separator or not width.isdigit() or not height.isdigit() or min(int(width), int(height)) < 32:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form WxH with 32 pixels or more")
    return int(height), int(width)


def _export(arguments: Arguments) -> None:
    from ml_backend.detector.chips import read_tile
    from ml_backend.detector.inference.export import export

    prepare_parent(arguments.out, "--out")
    chips = []
    if arguments.dataset:
        modalities = open_checkpoint(arguments.checkpoint).modalities
        dataset = read_dataset(arguments.dataset)
        tiles = dataset.with_modalities(modalities).usable_tiles(arguments.split)
        chips = [read_tile(dataset, modalities, tile) for tile in tiles[:COMPARED]]
    progress = ProgressBar(arguments.json)
    parity = export(arguments.checkpoint, arguments.out, size=arguments.size, chips=chips, progress=progress)
    progress.close()
    worst = max(parity.differences.values())
    print(
        json.dumps({"folder": str(arguments.out), **asdict(parity)}, indent=2)
        if arguments.json
        else f"{arguments.out}: {parity.agreement:.1%} of {parity.detections} detections on {parity.tiles} "
        f"{parity.source} agree with the checkpoint's; outputs differ by at most {worst:.1e} of the largest value"
    )
