"""``predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.commands.options import Arguments, add_command, common_options, dataset_options
from ml_backend.detector.commands.progress import Bar
from ml_backend.detector.dataset import read_dataset


def add(commands: Any) -> None:
    """Declare the command."""
    found = add_command(commands, "predict", _predict, "Find instances on the tiles of a split and write them as JSON.")
    dataset_options(found)
    found.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    found.add_argument(
        "--score-threshold", type=float, default=0.05, help="leave out less certain ones (default: 0.05)"
    )
    common_options(found)


def _predict(arguments: Arguments) -> None:
    from ml_backend.detector.chips import read_tile
    from ml_backend.detector.evaluation import check_fits
    from ml_backend.detector.inference import load

    dataset = read_dataset(arguments.dataset)
    detector = load(arguments.checkpoint, arguments.device)
    check_fits(detector, dataset, arguments.checkpoint)
    tiles = dataset.with_modalities(detector.modalities).usable_tiles(arguments.split)
    progress = Bar(arguments.json)
    predictions = []
    for number, tile in enumerate(tiles, start=1):
        chip = read_tile(dataset, detector.modalities, tile)
        (result,) = detector.predict([chip], score_threshold=arguments.score_threshold)
        predictions.append(
            {
                "file_name": tile.file_name,
                "detections": [detection.to_json() for detection in result.detections],
                "embedding": result.embedding.tolist(),
                "seconds": result.seconds,
            }
        )
        progress(number / len(tiles), f"tile {number}/{len(tiles)}")
    progress.close()
    replace_file(arguments.out, json.dumps({"tiles": predictions}).encode())
    found = sum(len(prediction["detections"]) for prediction in predictions)
    summary = {"file": str(arguments.out), "tiles": len(tiles), "instances": found}
    print(json.dumps(summary) if arguments.json else f"{arguments.out}: {found} instances on {len(tiles)} tiles")
