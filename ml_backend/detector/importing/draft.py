"""Writing a dataset directory from imported tiles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from contracts.dataset import ANNOTATIONS_FOLDER, DATASET_FILE, SPLITS, annotation_file, chip_folder
from ml_backend.detector.annotations import CHIP_SUFFIXES
from ml_backend.detector.errors import DatasetError

COLOURS = {1: ["grey"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"]}


@dataclass(frozen=True)
class LabelledTile:
    """One labelled tile of a source.

    Attributes:
        name: file name of its chips, with suffix.
        objects: (class, COCO segmentation, whether it is ignored) of each.
        image: image file of its only modality; None if it has arrays.
        arrays: per modality [C, H, W], in the modality's own units.
        split: train, val or test; empty if the source does not say.
        size: (height, width) of the image that was labelled; None if the source does not say.
    """

    name: str
    objects: Sequence[tuple[str, Any, bool]]
    image: Path | None = None
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    split: str = ""
    size: tuple[int, int] | None = None


@dataclass
class Draft:
    """A dataset directory that is being written.

    Attributes:
        root: the directory.
        modality: of tiles that are image files.
        left_out: what was not imported, each with the reason.
        bands: names of the bands by modality.
        classes: names in order of first occurrence.
        tiles: those written, each with its height and width.
    """

    root: Path
    modality: str
    left_out: list[str] = field(default_factory=list)
    bands: dict[str, list[str]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    tiles: list[tuple[LabelledTile, int, int]] = field(default_factory=list)
    _stems: set[str] = field(default_factory=set)

    def add(self, tile: LabelledTile) -> None:
        """Write a tile's chips and record its objects; leave it out if its image does not match the labels."""
        count, height, width = _shape(tile.image) if tile.image else (0, 0, 0)
        if tile.image and (reason := self._misfit(tile, count, (height, width))):
            self.left_out.append(f"{tile.name}: {reason}")
            return
        stem, suffix = Path(tile.name).stem, Path(tile.name).suffix
        number, unique = 1, stem
        while unique.lower() in self._stems:
            number += 1
            unique = f"{stem}_{number}"
        self._stems.add(unique.lower())
        name = unique + (suffix if suffix.lower() in CHIP_SUFFIXES else ".tif")
        if tile.image:
            self._declare(self.modality, count, COLOURS.get(count))
            target = chip_folder(self.root, self.modality) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tile.image, target)
        for modality, array in tile.arrays.items():
            count, height, width = array.shape
            self._declare(modality, count, None)
            _write(chip_folder(self.root, modality) / name, array)
        for label, _, _ in tile.objects:
            if label not in self.classes:
                self.classes.append(label)
        self.tiles.append((LabelledTile(name, tile.objects, split=tile.split), height, width))

    def _misfit(self, tile: LabelledTile, count: int, size: tuple[int, int]) -> str:
        """Why a tile's image cannot be used; empty if it can."""
        if tile.size not in (None, size):
            labelled = f"{tile.size[1]} x {tile.size[0]}" if tile.size else ""
            return (
                f"the image has {size[1]} x {size[0]} pixels, but {labelled} were labelled: outlines would be displaced"
            )
        bands = self.bands.get(self.modality)
        return f"the image has {count} bands, others {len(bands)}" if bands and len(bands) != count else ""

    def _declare(self, modality: str, count: int, names: list[str] | None) -> None:
        self.bands.setdefault(modality, names or [f"band{n + 1}" for n in range(count)])

    def finish(self, name: str, shares: tuple[float, float], seed: int) -> None:
        """Write dataset.json and the annotations.

        Args:
            name: of the dataset.
            shares: of the tiles for val and test, if the source has no splits.
            seed: of the random split.

        Raises:
            DatasetError: no tile or no class was imported.
        """
        if not self.tiles or not self.classes:
            reason = f" (first: {self.left_out[0]})" if self.left_out else ""
            raise DatasetError(f"No labelled tile was found{reason}: check the folder, --format and --images.")
        given = any(tile.split for tile, _, _ in self.tiles)
        order = np.random.default_rng(seed).permutation(len(self.tiles))
        val, held_out = (round(share * len(order)) for share in (shares[0], sum(shares)))
        places = [*["val"] * val, *["test"] * (held_out - val), *["train"] * (len(order) - held_out)]
        drawn = dict(zip(order.tolist(), places, strict=True))
        files: dict[str, dict[str, Any]] = {split: {"images": [], "annotations": []} for split in SPLITS}
        for number, (tile, height, width) in enumerate(self.tiles):
            data = files[(tile.split or "train") if given else drawn[number]]
            data["images"].append({"id": number + 1, "file_name": tile.name, "width": width, "height": height})
            for label, outline, ignored in tile.objects:
                entry = {"id": sum(len(f["annotations"]) for f in files.values()) + 1, "image_id": number + 1}
                entry |= {"category_id": self.classes.index(label) + 1, "segmentation": outline}
                data["annotations"].append({**entry, "iscrowd": 0, **({"ignore": 1} if ignored else {})})
        (self.root / ANNOTATIONS_FOLDER).mkdir()
        categories = [{"id": n + 1, "name": label} for n, label in enumerate(self.classes)]
        for split, data in files.items():
            if data["images"]:
                text = json.dumps({**data, "categories": categories})
                annotation_file(self.root, split).write_text(text, encoding="utf-8")
        modalities = [{"name": modality, "bands": bands} for modality, bands in self.bands.items()]
        whole = {"name": name, "version": "1", "classes": self.classes, "modalities": modalities}
        (self.root / DATASET_FILE).write_text(json.dumps(whole, indent=2), encoding="utf-8")


def _shape(image: Path) -> tuple[int, int, int]:
    """(bands, height, width) of an image file, as the detector will read it."""
    from ml_backend.detector.chips import read_chip
    from ml_backend.detector.dataset import ModalitySpec

    with rasterio.open(image) as raster:
        count = raster.count
    array, _ = read_chip(image, ModalitySpec("any", tuple(map(str, range(count)))))
    return array.shape[0], array.shape[1], array.shape[2]


def _write(file: Path, array: npt.NDArray[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    values = array.astype(np.float32)
    with rasterio.open(
        file, "w", driver="GTiff", count=count, height=height, width=width, dtype="float32", nodata=np.nan
    ) as raster:
        raster.write(values)
