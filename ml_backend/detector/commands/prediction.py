"""``predict``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.detector.checkpoint import open_checkpoint
from ml_backend.detector.commands.options import Arguments, add_command, common_options, search_options
from ml_backend.detector.commands.paths import by_modality, make_room_for_files, modality_path, write
from ml_backend.detector.commands.progress import Bar
from ml_backend.detector.dataset import SPLITS, Tile, read_dataset
from ml_backend.detector.errors import ConfigError, DatasetError, PromptError

if TYPE_CHECKING:
    from ml_backend.detector.chips import ChipInput
    from ml_backend.detector.inference import Detection, Detector
    from ml_backend.detector.inference.rasters import Place

DEFAULT_SPLIT = "test"


@dataclass(frozen=True)
class Source:
    """What is predicted: its name, a file that says where it lies, and its pixels, read when their turn comes."""

    name: str
    file: Path
    read: Callable[[], ChipInput]


Answer = tuple[Source, dict[str, Any], "Sequence[Detection]"]


def add(commands: Any) -> None:
    """Declare the command."""
    found = add_command(commands, "predict", _predict, "Find instances on tiles or rasters and write them as JSON.")
    add = found.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder, or what 'export' wrote")
    source = found.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", type=Path, metavar="DIR", help="dataset directory whose tiles to predict")
    source.add_argument(
        "--chip",
        action="append",
        type=modality_path("FILE"),
        metavar="M=FILE",
        help="a raster of modality M; repeat for others",
    )
    add("--split", choices=SPLITS, help=f"of the dataset (default: {DEFAULT_SPLIT})")
    add("--tile", metavar="FILE_NAME", help="only this tile of the split")
    add(
        "--box",
        action="append",
        type=_box,
        metavar="X1,Y1,X2,Y2",
        help="say what is in this box of the tile or raster instead of searching it (pixels; repeatable); "
        "write --box=-5,... where it begins with a minus",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    add("--geojson", type=Path, metavar="FILE", help="also write the outlines in the world's coordinates (EPSG:4326)")
    add("--score-threshold", type=float, default=0.05, help="leave out less certain ones (default: 0.05)")
    add("--min-pixels", type=int, default=10, help="leave out smaller ones (default: 10)")
    add("--tolerance", type=float, default=0.5, help="pixels an outline may be simplified by (default: 0.5)")
    search_options(found)
    add("--batch-size", type=int, default=8, help="tiles that go through the network together (default: 8)")
    common_options(found)


def _box(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form X1,Y1,X2,Y2") from None


def _predict(arguments: Arguments) -> None:
    _check(arguments)
    sources = _sources(arguments)
    places = {source.file: _place(source.file) for source in sources} if arguments.geojson else {}
    from ml_backend.detector.inference import load

    detector = load(arguments.checkpoint, arguments.device)
    if arguments.dataset:
        from ml_backend.detector.evaluation import check_fits

        check_fits(detector, read_dataset(arguments.dataset), arguments.checkpoint)
    progress = Bar(arguments.json)
    answers, placed = [], []
    for source, answer, detections in (_answer_boxes if arguments.box else _search)(
        detector, sources, arguments, progress
    ):
        answers.append(
            {"file_name": source.name, **answer, "detections": [detection.to_json() for detection in detections]}
        )
        if arguments.geojson:
            placed.append((source.name, places[source.file], detections))
    progress.close()
    write(arguments.out, json.dumps({"tiles": answers}))
    if arguments.geojson:
        from ml_backend.detector.inference.rasters import feature_collection

        write(arguments.geojson, json.dumps(feature_collection(placed)))
    found = sum(len(answer["detections"]) for answer in answers)
    summary = {"file": str(arguments.out), "tiles": len(answers), "instances": found}
    print(json.dumps(summary) if arguments.json else f"{arguments.out}: {found} instances on {len(answers)} tiles")


def _check(arguments: Arguments) -> None:
    """Refuse options that make no sense, alone or together, before anything is read."""
    from ml_backend.detector.inference.limits import check_limits

    make_room_for_files(out=arguments.out, geojson=arguments.geojson)
    check_limits(
        score_threshold=arguments.score_threshold,
        min_pixels=arguments.min_pixels,
        tolerance=arguments.tolerance,
        batch_size=arguments.batch_size,
    )
    if arguments.chip and (arguments.tile or arguments.split):
        raise ConfigError("--tile and --split choose tiles of a dataset: leave them out with --chip.")
    if arguments.box and (arguments.window is not None or arguments.overlap is not None):
        raise ConfigError("--window and --overlap are for searching: leave them out with --box.")
    if arguments.box and arguments.dataset and not arguments.tile:
        raise PromptError("A box needs to know its tile: name one with --tile, or give a raster with --chip.")


def _search(
    detector: Detector, sources: Sequence[Source], arguments: Arguments, progress: Callable[[float, str], None]
) -> Iterator[Answer]:
    """Predict tile by tile, as many at once as go through the network together."""
    options = {
        name: getattr(arguments, name)
        for name in ("score_threshold", "min_pixels", "tolerance", "window", "overlap", "tta", "batch_size")
    }
    total = len(sources)
    for done in range(0, total, arguments.batch_size):
        batch = sources[done : done + arguments.batch_size]

        def report(share: float, text: str, done: int = done, count: int = len(batch)) -> None:
            progress((done + share * count) / total, text if total == 1 else f"tile {done + count}/{total}")

        results = detector.predict([source.read() for source in batch], progress=report, **options)
        for source, result in zip(batch, results, strict=True):
            yield (
                source,
                {"embedding": result.embedding.tolist(), "seconds": result.seconds},
                result.detections,
            )


def _answer_boxes(
    detector: Detector, sources: Sequence[Source], arguments: Arguments, progress: Callable[[float, str], None]
) -> Iterator[Answer]:
    """What is in the boxes of one tile."""
    (source,) = sources
    options = {"tolerance": arguments.tolerance, "tta": arguments.tta}
    yield source, {"boxes": arguments.box}, detector.segment(source.read(), arguments.box, **options)


def _sources(arguments: Arguments) -> list[Source]:
    """What is to be predicted."""
    from ml_backend.detector.chips import read_tile
    from ml_backend.detector.inference.rasters import read_stack

    modalities = open_checkpoint(arguments.checkpoint).modalities
    if arguments.chip:
        files = by_modality(arguments.chip, "--chip")
        chip, first = read_stack(files, modalities), next(iter(files.values()))
        return [Source(first.name, first, lambda: chip)]
    dataset, split = read_dataset(arguments.dataset).with_modalities(modalities), arguments.split or DEFAULT_SPLIT
    tiles = dataset.usable_tiles(split)
    if arguments.tile:
        tiles = tuple(tile for tile in tiles if tile.file_name == arguments.tile)
        if not tiles:
            raise DatasetError(
                f"{dataset.annotation_file(split)} has no usable tile '{arguments.tile}': give its file_name and "
                "--split."
            )

    def source(tile: Tile) -> Source:
        file = next(f for m in modalities if (f := dataset.chip_file(m.name, tile)))
        return Source(tile.file_name, file, lambda: read_tile(dataset, modalities, tile))

    return [source(tile) for tile in tiles]


def _place(file: Path) -> Place:
    from ml_backend.detector.inference.rasters import place_of

    place = place_of(file)
    if place is None:
        raise DatasetError(f"{file} does not say where it lies: leave out --geojson or georeference it.")
    return place
