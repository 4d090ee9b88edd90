"""Everything that would otherwise fail, or silently spoil, a training hours later: found before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ml_backend.detector.chips import read_tile
from ml_backend.detector.dataset import DatasetSpec, Instance, ModalitySpec, Tile
from ml_backend.detector.errors import DatasetError
from ml_backend.detector.masks import rle_counts, segmentation_polygons

FARTHEST = 1e7  # pixels from a tile's corner that an outline may reach


def check_dataset(dataset: DatasetSpec, modalities: Sequence[str], splits: Iterable[str]) -> tuple[ModalitySpec, ...]:
    """Check all annotations and chips of the splits, and complete the normalisation.

    Args:
        dataset: the directory.
        modalities: names of those that will be used.
        splits: splits to check; statistics that dataset.json lacks are computed on ``train`` when it is among them.

    Returns:
        The modalities, in the given order, with mean and std.

    Raises:
        DatasetError: one sentence naming the file and the remedy.
    """
    specs = tuple(dataset.modality(name) for name in modalities)
    for spec in specs:
        folder = dataset.path / "chips" / spec.name
        if not folder.is_dir():
            raise DatasetError(
                f"{folder} is missing, but dataset.json declares modality '{spec.name}': "
                "add the folder with its chips, or remove the modality."
            )
    sums = {spec.name: _BandSums(len(spec.bands)) for spec in specs}
    taught: set[str] = set()
    split_of: dict[str, str] = {}
    for split in splits:
        source = dataset.annotation_file(split)
        tiles = dataset.tiles(split)
        _keep_apart(dataset, split, tiles, split_of)
        usable: list[Tile] = []
        for tile in tiles:
            for instance in tile.instances:
                _check_instance(source, tile, instance)
            chip = read_tile(dataset, specs, tile)
            if not chip.arrays and len(specs) < len(dataset.modalities):
                continue  # it has only modalities that are not used here: see DatasetSpec.usable_tiles
            if not chip.arrays:
                raise DatasetError(
                    f"{source}: tile '{tile.file_name}' has no chip in any of {', '.join(modalities)}: "
                    f"add one under {dataset.path / 'chips'} or remove the tile."
                )
            usable.append(tile)
            if split == "train":
                taught.update(chip.arrays)
                for name, array in chip.arrays.items():
                    sums[name].add(array[:, chip.valid[name]])
        if split == "train" and not any(not i.ignored for tile in usable for i in tile.instances):
            where = f" on tiles with {' or '.join(modalities)}" if len(usable) < len(tiles) else ""
            raise DatasetError(f"{source} holds no annotations to learn from{where}: label at least one object.")
        if split == "train" and (untaught := [name for name in modalities if name not in taught]):
            raise DatasetError(
                f"{dataset.path / 'chips' / untaught[0]} holds no chip of a tile of {source}, so nothing can be learnt "
                f"of modality '{untaught[0]}': add its chips, or leave the modality out."
            )
    return tuple(spec if spec.mean else sums[spec.name].complete(spec, dataset.path) for spec in specs)


def check_apart(dataset: DatasetSpec, splits: Iterable[str]) -> None:
    """Check that no tile is in two of the splits; reads annotations alone.

    Raises:
        DatasetError: naming both files.
    """
    split_of: dict[str, str] = {}
    for split in splits:
        _keep_apart(dataset, split, dataset.tiles(split), split_of)


def _keep_apart(dataset: DatasetSpec, split: str, tiles: Iterable[Tile], split_of: dict[str, str]) -> None:
    """Note the split of each tile, in ``split_of`` by its stem; refuse it where it is in another one."""
    for tile in tiles:
        if (other := split_of.setdefault(tile.stem, split)) != split:
            raise DatasetError(
                f"{dataset.annotation_file(split)}: tile '{tile.file_name}' is in {dataset.annotation_file(other)}, "
                "too: keep it in one of them, or measurements mean nothing."
            )


class _BandSums:
    """Running sums of valid pixels, for mean and standard deviation per band."""

    def __init__(self, bands: int) -> None:
        self.count = 0
        self.total = np.zeros(bands)
        self.squares = np.zeros(bands)

    def add(self, pixels: Any) -> None:
        """Add pixels [C, N]."""
        values = pixels.astype(np.float64)
        self.count += values.shape[1]
        self.total += values.sum(axis=1)
        self.squares += (values**2).sum(axis=1)

    def complete(self, spec: ModalitySpec, path: Path) -> ModalitySpec:
        if not self.count:
            raise DatasetError(
                f"{path / 'chips' / spec.name} holds no valid pixel of the training tiles, so modality '{spec.name}' "
                "cannot be normalised: add chips, state 'mean' and 'std' in dataset.json, or leave the modality out."
            )
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        std[std < 1e-6] = 1.0  # a constant band carries nothing: leave it at zero after centring
        return replace(spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _check_instance(source: Path, tile: Tile, instance: Instance) -> None:
    problem = _segmentation_problem(tile, instance.segmentation)
    if problem:
        raise DatasetError(
            f"{source}: the outline of annotation {instance.id} on '{tile.file_name}' {problem}: "
            "correct it or remove the annotation."
        )


def _segmentation_problem(tile: Tile, segmentation: Any) -> str:
    """What is wrong with a COCO segmentation, as the end of a sentence; empty when nothing is."""
    if isinstance(segmentation, dict):
        return _rle_problem(tile, segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return "is empty"
    for ring in segmentation:
        if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
            return "needs at least three points (x, y, x, y, ...) in each polygon"
        if not all(type(value) in (int, float) and abs(value) < FARTHEST for value in ring):
            return "has a coordinate that is not a number of pixels"
    for polygon in segmentation_polygons(segmentation):
        if not polygon.is_valid:
            return f"is not a valid polygon ({shapely.is_valid_reason(polygon)})"
        if not polygon.intersects(shapely.box(0, 0, tile.width, tile.height)):
            return "lies outside its tile"
    return ""


def _rle_problem(tile: Tile, rle: dict[str, Any]) -> str:
    if rle.get("size") != [tile.height, tile.width]:
        return f"is an RLE of size {rle.get('size')} on a tile of [{tile.height}, {tile.width}]"
    if "counts" not in rle:
        return "is an RLE without counts"
    try:
        runs = rle_counts(rle["counts"])
    except ValueError as error:
        return f"is an unreadable RLE ({error})"
    if sum(runs) != tile.height * tile.width:
        return f"is an RLE of {sum(runs)} pixels on a tile of {tile.height * tile.width}"
    return "" if sum(runs[1::2]) else "is empty"
