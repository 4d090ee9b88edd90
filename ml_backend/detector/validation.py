"""Checks of a dataset before a training starts, for what would make it fail or spoil its result hours later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from contracts.dataset import DATASET_FILE, chip_folder
from ml_backend.detector.chips import ChipInput, network_size, read_tile
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import AnnotatedInstance, DatasetSpec, ModalitySpec, Tile, read_dataset
from ml_backend.detector.errors import DatasetError
from ml_backend.detector.masks import resize_nearest, segmentation_mask
from ml_backend.detector.outlines import segmentation_fault
from ml_backend.detector.problems import Problem, Report, attempt, refuse


def check_dataset(
    dataset: DatasetSpec, modalities: Sequence[str], splits: Iterable[str], report: Report = refuse
) -> tuple[ModalitySpec, ...]:
    """Check all annotations and chips of the splits, and complete the normalisation.

    Args:
        dataset: the directory.
        modalities: names of those that will be used.
        splits: splits to check; statistics that dataset.json lacks are computed on ``train`` when it is among them.
        report: called with each problem; by default the first one is raised.

    Returns:
        The modalities, in the given order, with mean and std (where they could be computed).

    Raises:
        DatasetError: by default, one sentence naming the file and the remedy.
    """
    specs = tuple(dataset.modality(name) for name in modalities)
    for spec in specs:
        folder = chip_folder(dataset.path, spec.name)
        if not folder.is_dir():
            text = (
                f"{folder} is missing, but dataset.json declares modality '{spec.name}': "
                "add the folder with its chips, or remove the modality."
            )
            report(Problem("folder of chips missing", text, folder))
    sums = {spec.name: _BandSums(len(spec.bands)) for spec in specs}
    taught: set[str] = set()
    split_of: dict[str, str] = {}
    for split in splits:
        source = dataset.annotation_file(split)
        tiles = attempt(report, "annotation file", source, partial(dataset.tiles, split, report)) or ()
        _keep_apart(dataset, split, tiles, split_of, report)
        usable: list[Tile] = []
        for tile in tiles:
            for instance in tile.instances:
                _check_instance(source, tile, instance, report)
            chip, unreadable = _read_chips(dataset, specs, tile, report)
            if unreadable:
                continue
            if not chip.arrays and len(specs) < len(dataset.modalities):
                continue  # its modalities are not used here: see DatasetSpec.usable_tiles
            if not chip.arrays:
                text = (
                    f"{source}: tile '{tile.file_name}' has no chip in any of {', '.join(modalities)}: "
                    f"add one under {dataset.path / 'chips'} or remove the tile."
                )
                report(Problem("tile without chips", text, source, tile.file_name))
                continue
            usable.append(tile)
            if split == "train":
                taught.update(chip.arrays)
                for name, array in chip.arrays.items():
                    sums[name].add(array[:, chip.valid[name]])
        if split == "train" and not any(not i.ignored for tile in usable for i in tile.instances):
            where = f" on tiles with {' or '.join(modalities)}" if len(usable) < len(tiles) else ""
            text = f"{source} holds no annotations to learn from{where}: label at least one object."
            report(Problem("nothing to learn", text, source))
        if split == "train" and (untaught := [name for name in modalities if name not in taught]):
            text = (
                f"{dataset.path / 'chips' / untaught[0]} holds no chip of a tile of {source}, so nothing can be learnt "
                f"of modality '{untaught[0]}': add its chips, or leave the modality out."
            )
            report(Problem("nothing to learn", text, source))

    def completed(spec: ModalitySpec) -> ModalitySpec:
        if spec.mean:
            return spec
        work = sums[spec.name].complete
        return attempt(report, "no valid pixels", dataset.path, lambda: work(spec, dataset.path)) or spec

    return tuple(map(completed, specs))


def _read_chips(
    dataset: DatasetSpec, specs: Sequence[ModalitySpec], tile: Tile, report: Report
) -> tuple[ChipInput, bool]:
    """The tile's chips, and whether any of them cannot be read."""
    found = [
        attempt(report, "unreadable chip", dataset.path, partial(read_tile, dataset, [spec], tile), tile.file_name)
        for spec in specs
    ]
    chips = [chip for chip in found if chip]
    whole = ChipInput(
        {name: array for chip in chips for name, array in chip.arrays.items()},
        {name: valid for chip in chips for name, valid in chip.valid.items()},
    )
    return whole, len(chips) < len(found)


def find_problems(dataset_dir: Path | str) -> list[Problem]:
    """All problems of a dataset directory: of its description, all annotations and all chips."""
    problems: list[Problem] = []
    source = Path(dataset_dir) / DATASET_FILE
    dataset = attempt(problems.append, "description", source, lambda: read_dataset(dataset_dir, problems.append))
    if dataset is None:
        return problems
    if not dataset.has_split("train"):
        file = dataset.annotation_file("train")
        text = f"{file} is missing: give the right path, or write it (COCO annotations)."
        problems.append(Problem("annotation file", text, file))
    check_dataset(dataset, [modality.name for modality in dataset.modalities], dataset.splits, problems.append)
    return problems


def check_apart(dataset: DatasetSpec, splits: Iterable[str]) -> None:
    """Check that no tile is in two of the splits; reads annotations only.

    Raises:
        DatasetError: naming both files.
    """
    split_of: dict[str, str] = {}
    for split in splits:
        _keep_apart(dataset, split, dataset.tiles(split), split_of, refuse)


def _keep_apart(
    dataset: DatasetSpec, split: str, tiles: Iterable[Tile], split_of: dict[str, str], report: Report
) -> None:
    """Record the split of each tile in ``split_of``, by its stem; report tiles that are in another split, too."""
    for tile in tiles:
        if (other := split_of.setdefault(tile.stem, split)) != split:
            source = dataset.annotation_file(split)
            text = (
                f"{source}: tile '{tile.file_name}' is in {dataset.annotation_file(other)}, too: keep it in one of "
                "them, otherwise metrics are meaningless."
            )
            report(Problem("tile in two splits", text, source, tile.file_name))


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
        std[std < 1e-6] = 1.0  # a constant band carries no information: it is 0 after centring
        return replace(spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _check_instance(source: Path, tile: Tile, instance: AnnotatedInstance, report: Report) -> None:
    fault = segmentation_fault((tile.height, tile.width), instance.segmentation)
    if fault:
        text = (
            f"{source}: the outline of annotation {instance.id} on '{tile.file_name}' {fault.text}: "
            "correct it or remove the annotation."
        )
        report(Problem(fault.kind, text, source, tile.file_name, instance.id))


def require_objects(dataset: DatasetSpec, config: DetectorConfig) -> None:
    """Check that the training split has objects to learn from, and the validation split objects to choose weights by.

    Args:
        dataset: with only the used modalities.
        config: of the training; with ``eval_interval`` weights are chosen on ``val``.

    Raises:
        DatasetError: there are none.
    """
    pixels = config.min_instance_pixels / max(1.0, config.scale_jitter[1]) ** 2
    if not holds_objects(dataset, "train", pixels, config.reduction(dataset.longest_side)):
        raise DatasetError(
            f"{dataset.annotation_file('train')}: no object covers {config.min_instance_pixels} pixels "
            f"(min_instance_pixels) of what the network sees{_where(dataset)}, so there is nothing to learn: give a "
            "larger image_size or a smaller min_instance_pixels, or label larger objects."
        )
    if config.eval_interval and not holds_objects(dataset, "val"):
        raise DatasetError(
            f"{dataset.annotation_file('val')} holds no objects{_where(dataset)}, so evaluations cannot tell which "
            "weights are better: label at least one there, or leave out eval_interval and patience."
        )


def _where(dataset: DatasetSpec) -> str:
    return f" on tiles with {' or '.join(modality.name for modality in dataset.modalities)}"


def holds_objects(dataset: DatasetSpec, split: str, pixels: float = 1, reduction: float = 1.0) -> bool:
    """Whether a usable tile of a split has an object, not ignored, of at least ``pixels`` network pixels."""
    for tile in dataset.usable_tiles(split):
        size = network_size((tile.height, tile.width), reduction)
        for instance in tile.instances:
            if not instance.ignored:
                mask = segmentation_mask(instance.segmentation, tile.height, tile.width)
                if resize_nearest(mask[None], size).sum() >= pixels:
                    return True
    return False
