"""``predict``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.commands.options import Arguments, add_command, common_options
from ml_backend.detector.commands.progress import Bar
from ml_backend.detector.dataset import Tile, read_dataset
from ml_backend.detector.errors import DatasetError, DetectorError, PromptError

if TYPE_CHECKING:
    from ml_backend.detector.chips import ChipInput
    from ml_backend.detector.inference import Detection, Detector

Source = tuple[str, "ChipInput", Path]  # its name, its pixels, a file that says where it lies


def add(commands: Any) -> None:
    """Declare the command."""
    found = add_command(commands, "predict", _predict, "Find instances on tiles or rasters and write them as JSON.")
    add = found.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder, or what 'export' wrote")
    source = found.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", type=Path, metavar="DIR", help="dataset directory whose tiles to predict")
    source.add_argument(
        "--chip", action="append", type=_named_file, metavar="M=FILE", help="a raster of modality M; repeat for others"
    )
    add("--split", default="test", choices=("train", "val", "test"), help="of the dataset (default: test)")
    add("--tile", metavar="FILE_NAME", help="only this tile of the split")
    add(
        "--box",
        action="append",
        type=_box,
        metavar="X1,Y1,X2,Y2",
        help="say what is in this box of the tile or raster instead of searching it (pixels; repeatable)",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    add("--geojson", type=Path, metavar="FILE", help="also write the outlines in the world's coordinates (EPSG:4326)")
    add("--score-threshold", type=float, default=0.05, help="leave out less certain ones (default: 0.05)")
    add("--min-pixels", type=int, default=10, help="leave out smaller ones (default: 10)")
    add("--tolerance", type=float, default=0.5, help="pixels an outline may be simplified by (default: 0.5)")
    add(
        "--window", type=int, help="cut larger tiles into windows of so many pixels (default: the training tiles' size)"
    )
    add("--overlap", type=int, help="pixels that windows share (default: a fourth of the window)")
    add(
        "--tta",
        default="none",
        choices=("none", "flips", "d4"),
        help="look at every tile mirrored (4 x the time) or also turned (8 x), and average (default: none)",
    )
    add("--batch-size", type=int, default=8, help="tiles that go through the network together (default: 8)")
    common_options(found)


def _named_file(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form MODALITY=FILE")
    return name, Path(path)


def _box(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form X1,Y1,X2,Y2") from None


def _predict(arguments: Arguments) -> None:
    from ml_backend.detector.inference import load

    if arguments.batch_size < 1:
        raise DetectorError(f"A batch size of {arguments.batch_size} makes no sense: give 1 or more.")
    detector = load(arguments.checkpoint, arguments.device)
    progress = Bar(arguments.json)
    predictions, places = [], []
    for file, answer in (_answer_boxes if arguments.box else _search)(detector, arguments, progress):
        predictions.append({**answer, "detections": [detection.to_json() for detection in answer["detections"]]})
        places.append((answer["file_name"], file, answer["detections"]))
    progress.close()
    replace_file(arguments.out, json.dumps({"tiles": predictions}).encode())
    if arguments.geojson:
        replace_file(arguments.geojson, json.dumps(_world(places)).encode())
    found = sum(len(prediction["detections"]) for prediction in predictions)
    summary = {"file": str(arguments.out), "tiles": len(predictions), "instances": found}
    print(json.dumps(summary) if arguments.json else f"{arguments.out}: {found} instances on {len(predictions)} tiles")


def _search(
    detector: Detector, arguments: Arguments, progress: Callable[[float, str], None]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Predict tile by tile, as many at once as go through the network together."""
    options = {
        name: getattr(arguments, name)
        for name in ("score_threshold", "min_pixels", "tolerance", "window", "overlap", "tta", "batch_size")
    }
    batches, total = _sources(detector, arguments)
    done = 0
    for batch in batches:
        count = len(batch)

        def report(share: float, text: str, done: int = done, count: int = count) -> None:
            progress((done + share * count) / total, text if total == 1 else f"tile {done + count}/{total}")

        results = detector.predict([chip for _, chip, _ in batch], progress=report, **options)
        for (name, _, file), result in zip(batch, results, strict=True):
            embedding = result.embedding.tolist()
            yield (
                file,
                {
                    "file_name": name,
                    "detections": result.detections,
                    "embedding": embedding,
                    "seconds": result.seconds,
                },
            )
        done += count


def _answer_boxes(
    detector: Detector, arguments: Arguments, progress: Callable[[float, str], None]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What is in the boxes of one tile."""
    batches, total = _sources(detector, arguments)
    if total != 1:
        raise PromptError("A box needs to know its tile: name one with --tile, or give a raster with --chip.")
    ((name, chip, file),) = next(batches)
    detections = detector.segment(chip, arguments.box, tolerance=arguments.tolerance, tta=arguments.tta)
    yield file, {"file_name": name, "boxes": arguments.box, "detections": detections}


def _sources(detector: Detector, arguments: Arguments) -> tuple[Iterator[list[Source]], int]:
    """Batches of what is to be predicted, read when their turn comes, and how many there are."""
    from ml_backend.detector.chips import read_tile
    from ml_backend.detector.evaluation import check_fits
    from ml_backend.detector.inference.rasters import read_stack

    if arguments.chip:
        files = dict(arguments.chip)
        first = next(iter(files.values()))
        return iter([[(first.name, read_stack(files, detector.modalities), first)]]), 1
    dataset = read_dataset(arguments.dataset)
    check_fits(detector, dataset, arguments.checkpoint)
    dataset = dataset.with_modalities(detector.modalities)
    tiles = dataset.usable_tiles(arguments.split)
    if arguments.tile:
        tiles = tuple(tile for tile in tiles if tile.file_name == arguments.tile)
        if not tiles:
            raise DatasetError(
                f"{dataset.annotation_file(arguments.split)} has no usable tile '{arguments.tile}': "
                "give its file_name and --split."
            )

    def source(tile: Tile) -> Source:
        file = next(f for m in detector.modalities if (f := dataset.chip_file(m.name, tile)))
        return tile.file_name, read_tile(dataset, detector.modalities, tile), file

    step = arguments.batch_size
    starts = range(0, len(tiles), step)
    return ([source(tile) for tile in tiles[start : start + step]] for start in starts), len(tiles)


def _world(found: Sequence[tuple[str, Path, Sequence[Detection]]]) -> dict[str, Any]:
    from ml_backend.detector.inference.rasters import feature_collection, place_of

    placed = []
    for name, file, detections in found:
        place = place_of(file)
        if place is None:
            raise DatasetError(f"{file} does not say where it lies: leave out --geojson or georeference it.")
        placed.append((name, place, detections))
    return feature_collection(placed)
