"""``predict``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.dataset import SPLITS
from ml_backend.detector.checkpoint import open_checkpoint
from ml_backend.detector.commands.options import Arguments, add_command, common_options, search_options
from ml_backend.detector.commands.paths import by_modality, modality_path, prepare_files
from ml_backend.detector.dataset import Tile, read_dataset
from ml_backend.detector.errors import ConfigError, DatasetError, PromptError
from ml_backend.detector.progress import ProgressBar

if TYPE_CHECKING:
    from ml_backend.detector.inference import Detector
    from ml_backend.detector.inference.journal import Journal
    from ml_backend.detector.inference.outputs import LocatedDetection
    from ml_backend.detector.inference.scanning import Source

DEFAULT_SPLIT = "test"
OUTPUTS = ("out", "gpkg", "geojson")


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "predict", _predict, "Find instances on tiles or rasters of any size.")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder, or what 'export' wrote")
    source = parser.add_mutually_exclusive_group(required=True)
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
        help="segment this box of the tile or raster instead of searching it (pixels; repeatable); "
        "write --box=-5,... if it starts with a minus",
    )
    add("--out", type=Path, metavar="FILE", help="JSON file to write: outlines in pixels, and a tile's embedding")
    add("--gpkg", type=Path, metavar="FILE", help="GeoPackage to write: outlines in the rasters' own coordinates")
    add("--geojson", type=Path, metavar="FILE", help="GeoJSON to write: outlines in EPSG:4326")
    add("--score-threshold", type=float, default=0.05, help="leave out instances with a lower score (default: 0.05)")
    add("--min-pixels", type=int, default=10, help="leave out instances of fewer pixels (default: 10)")
    add("--tolerance", type=float, default=0.5, help="largest simplification of an outline in pixels (default: 0.5)")
    search_options(parser)
    add(
        "--max-overlap",
        type=float,
        metavar="SHARE",
        help="of two detections that share more of the smaller one, keep that with the higher score "
        "(default: determined on validation)",
    )
    add("--batch-size", type=int, default=8, help="tiles per forward pass (default: 8)")
    add("--no-resume", action="store_true", help="discard the state of an interrupted prediction")
    common_options(parser)


def _box(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form X1,Y1,X2,Y2") from None


def _predict(arguments: Arguments) -> None:
    _check(arguments)
    sources = _sources(arguments)
    if arguments.geojson or arguments.gpkg:
        for source in sources:
            _require_georeference(source)
    from ml_backend.detector.inference import load

    detector = load(arguments.checkpoint, arguments.device)
    if arguments.dataset:
        from ml_backend.detector.evaluation import check_fits

        check_fits(detector, read_dataset(arguments.dataset), arguments.checkpoint)
    found = (_segment_boxes if arguments.box else _search)(detector, sources, arguments)
    first = next(file for name in OUTPUTS if (file := getattr(arguments, name)))
    summary = {"file": str(first), "tiles": len(sources), "instances": found}
    print(json.dumps(summary) if arguments.json else f"{first}: {found} instances on {len(sources)} tiles")


def _check(arguments: Arguments) -> None:
    """Refuse invalid options and combinations before anything is read."""
    from ml_backend.detector.inference.arguments import check_limits

    files = {name: getattr(arguments, name) for name in OUTPUTS}
    if not any(files.values()):
        raise ConfigError("Nothing would be written: give --gpkg, --geojson or --out.")
    prepare_files(**files)
    check_limits(
        score_threshold=arguments.score_threshold,
        max_overlap=1.0 if arguments.max_overlap is None else arguments.max_overlap,
        min_pixels=arguments.min_pixels,
        tolerance=arguments.tolerance,
        batch_size=arguments.batch_size,
    )
    if arguments.chip and (arguments.tile or arguments.split):
        raise ConfigError("--tile and --split choose tiles of a dataset: leave them out with --chip.")
    if arguments.box and (arguments.window is not None or arguments.overlap is not None):
        raise ConfigError("--window and --overlap are for searching: leave them out with --box.")
    if arguments.box and arguments.dataset and not arguments.tile:
        raise PromptError("--box needs a tile: name one with --tile, or give a raster with --chip.")


def _search(detector: Detector, sources: Sequence[Source], arguments: Arguments) -> int:
    """Predict all windows, then write the detections; returns their number."""
    from ml_backend.detector.inference.journal import Journal
    from ml_backend.detector.inference.scanning import collect_detections, scan

    settings = {name: getattr(arguments, name) for name in ("window", "overlap", "tta", "batch_size")}
    limits = {name: getattr(arguments, name) for name in ("score_threshold", "min_pixels", "max_overlap", "tolerance")}
    for source in sources:  # check the options for every source before predicting any
        detector.windows(source.pixels.size, arguments.window, arguments.overlap)
    first = next(file for name in OUTPUTS if (file := getattr(arguments, name)))
    journal_file = first.with_name(first.name + ".unfinished")
    progress = ProgressBar(arguments.json)
    with Journal(journal_file, _identity(sources, arguments, settings), resume=not arguments.no_resume) as journal:
        scan(detector, sources, journal, progress=progress, **settings)
        progress.close()
        collect_detections(detector, sources, journal, **limits)
        _write(sources, journal, arguments)
        found = journal.count()
        journal.discard()
    return found


def _identity(sources: Sequence[Source], arguments: Arguments, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that the predictions of windows depend on, for resuming."""
    from ml_backend.detector.inference.journal import fingerprint

    return {
        "checkpoint": dict(open_checkpoint(arguments.checkpoint).card),
        "tiles": [source.name for source in sources],
        "files": fingerprint([file for source in sources for file in source.files]),
        **settings,
    }


def _write(sources: Sequence[Source], journal: Journal, arguments: Arguments) -> None:
    """Write the output files."""
    from ml_backend.detector.inference.detector import mean_embedding
    from ml_backend.detector.inference.outputs import GEOGRAPHIC, write_geojson, write_geopackage, write_json

    def placed() -> Iterator[LocatedDetection]:
        for tile, source in enumerate(sources):
            if source.georeference is not None:
                for detection in journal.detections(tile):
                    yield source.name, source.georeference, detection

    def tiles() -> Iterator[tuple[dict[str, Any], Iterator[dict[str, Any]]]]:
        for tile, source in enumerate(sources):
            embedding = mean_embedding(journal.window_results(tile)).tolist()
            seconds = sum(result.seconds for result in journal.window_results(tile))
            yield {"file_name": source.name, "embedding": embedding, "seconds": seconds}, journal.detections(tile)

    if arguments.out:
        write_json(arguments.out, tiles())
    if arguments.geojson:
        write_geojson(arguments.geojson, placed())
    if arguments.gpkg:
        systems = {source.georeference.crs for source in sources if source.georeference is not None}
        write_geopackage(arguments.gpkg, placed(), systems.pop() if len(systems) == 1 else GEOGRAPHIC)


def _segment_boxes(detector: Detector, sources: Sequence[Source], arguments: Arguments) -> int:
    """Segment the boxes on one tile and write the detections; returns their number."""
    from ml_backend.detector.inference.outputs import write_geojson, write_geopackage, write_json

    (source,) = sources
    detections = detector.segment(source.pixels, arguments.box, tolerance=arguments.tolerance, tta=arguments.tta)
    found = [detection.to_json() for detection in detections]
    if arguments.out:
        write_json(arguments.out, [({"file_name": source.name, "boxes": arguments.box}, found)])
    if source.georeference is not None:
        placed = [(source.name, source.georeference, detection) for detection in found]
        if arguments.geojson:
            write_geojson(arguments.geojson, placed)
        if arguments.gpkg:
            write_geopackage(arguments.gpkg, placed, source.georeference.crs)
    return len(found)


def _sources(arguments: Arguments) -> list[Source]:
    """The tiles or rasters to predict."""
    from ml_backend.detector.inference.rasters import RasterStack, read_georeference
    from ml_backend.detector.inference.scanning import Source, TileReader

    modalities = open_checkpoint(arguments.checkpoint).modalities
    if arguments.chip:
        files = by_modality(arguments.chip, "--chip")
        stack = RasterStack(files, modalities)
        return [Source(next(iter(files.values())).name, tuple(files.values()), stack, stack.georeference)]
    dataset, split = read_dataset(arguments.dataset).with_modalities(modalities), arguments.split or DEFAULT_SPLIT
    tiles = dataset.usable_tiles(split)
    if arguments.tile:
        tiles = tuple(tile for tile in tiles if tile.file_name == arguments.tile)
        if not tiles:
            raise DatasetError(
                f"{dataset.annotation_file(split)} has no usable tile '{arguments.tile}': give its file_name and "
                "--split."
            )
    reader, located = TileReader(dataset, modalities), arguments.geojson or arguments.gpkg

    def source(tile: Tile) -> Source:
        files = tuple(file for m in modalities if (file := dataset.chip_file(m.name, tile)))
        return Source(tile.file_name, files, reader.pixels(tile), read_georeference(files[0]) if located else None)

    return [source(tile) for tile in tiles]


def _require_georeference(source: Source) -> None:
    if source.georeference is None:
        raise DatasetError(
            f"{source.files[0]} has no georeference: leave out --geojson and --gpkg, or georeference it."
        )
