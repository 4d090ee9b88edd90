"""The dataset directory contract: what a Release writes, what anybody can bring, and what is refused.

::

    dataset.json                        name, version, classes, modalities, grid, provenance
    annotations/{train,val,test}.json   COCO
    chips/<modality>/<tile>.tif         [C, H, W] in the modality's own units; nodata is NaN or the declared value;
                                        PNG and JPEG too; a missing file means that the tile lacks the modality

Reading is cheap and touches no pixels; :mod:`ml_backend.detector.validation` checks the rest before training starts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ml_backend.detector.errors import DatasetError

CHIP_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
MODALITY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class ModalitySpec:
    """A modality as declared in ``dataset.json``.

    ``mean`` and ``std`` are per band, in the modality's own units, over valid training pixels; empty until computed.
    A modality measured in metres is a height: what matters is how it differs from its surroundings.
    """

    name: str
    bands: tuple[str, ...]
    range: tuple[float, float] | None = None
    nodata: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    unit: str = ""

    @property
    def is_height(self) -> bool:
        """Whether the values are metres: elevation, relative elevation, canopy height."""
        return self.unit == "m"

    @classmethod
    def from_json(cls, data: Mapping[str, Any], source: Path) -> ModalitySpec:
        """Parse one entry of ``modalities``.

        Raises:
            DatasetError: the name, the bands or the statistics are unusable.
        """
        name = str(data.get("name", ""))
        if not MODALITY_NAME.fullmatch(name):
            raise DatasetError(
                f"{source}: the modality name '{name}' is unusable: use lower-case letters, digits, '_' and '-'."
            )
        bands = tuple(str(band) for band in data.get("bands") or ())
        if not bands:
            raise DatasetError(f"{source}: modality '{name}' declares no bands: list their names under 'bands'.")
        mean, std = tuple(data.get("mean") or ()), tuple(data.get("std") or ())
        if (mean or std) and not (len(mean) == len(std) == len(bands) and min(std) > 0):
            raise DatasetError(
                f"{source}: 'mean' and positive 'std' of modality '{name}' need one value for each of its "
                f"{len(bands)} bands: correct them, or leave both out to have them computed."
            )
        limits = data.get("range")
        unit = str(data.get("unit") or "")
        return cls(name, bands, tuple(limits) if limits else None, data.get("nodata"), mean, std, unit)

    def to_json(self) -> dict[str, Any]:
        """The entry as written in ``dataset.json`` and in checkpoint cards."""
        return {
            "name": self.name,
            "bands": list(self.bands),
            "range": list(self.range) if self.range else None,
            "nodata": self.nodata,
            "mean": list(self.mean),
            "std": list(self.std),
            "unit": self.unit,
        }


@dataclass(frozen=True)
class Instance:
    """One annotated object: COCO segmentation (polygon list or RLE), 0-based class, whether it is to be ignored."""

    id: int
    segmentation: Any
    class_index: int
    ignored: bool


@dataclass(frozen=True)
class Tile:
    """One image of a split, with the objects on it; ``width`` and ``height`` in pixels."""

    id: int
    file_name: str
    width: int
    height: int
    region: str | None
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset directory whose ``dataset.json`` has been read."""

    path: Path
    name: str
    version: str
    classes: tuple[str, ...]
    modalities: tuple[ModalitySpec, ...]
    anchor: str
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def modality(self, name: str) -> ModalitySpec:
        """The declared modality of that name (KeyError if there is none)."""
        return {m.name: m for m in self.modalities}[name]

    def annotation_file(self, split: str) -> Path:
        """Where the annotations of a split lie."""
        return self.path / "annotations" / f"{split}.json"

    def has_split(self, split: str) -> bool:
        """Whether the split has an annotation file."""
        return self.annotation_file(split).is_file()

    def tiles(self, split: str) -> tuple[Tile, ...]:
        """Read the tiles of a split.

        Raises:
            DatasetError: the file is missing, is not COCO, lists an image twice or uses an undeclared class.
        """
        return read_annotations(self.annotation_file(split), self.classes)

    def usable_tiles(self, split: str) -> tuple[Tile, ...]:
        """The tiles of a split that have a chip in at least one of the modalities: the others are left out.

        Tiles without a DEM cannot teach a detector that sees nothing else; to the multimodal one they stay.

        Raises:
            DatasetError: see :meth:`tiles`.
        """
        names = [modality.name for modality in self.modalities]
        return tuple(tile for tile in self.tiles(split) if any(self.chip_file(name, tile) for name in names))

    def chip_file(self, modality: str, tile: Tile) -> Path | None:
        """The tile's chip of a modality, whatever its suffix; None when the tile lacks the modality."""
        folder = self.path / "chips" / modality
        for name in (tile.file_name, *(str(Path(tile.file_name).with_suffix(s)) for s in CHIP_SUFFIXES)):
            if (folder / name).is_file():
                return folder / name
        return None

    def with_modalities(self, modalities: tuple[ModalitySpec, ...]) -> DatasetSpec:
        """The same dataset with (for example, normalised) modalities in place of its own."""
        return replace(self, modalities=modalities)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over the names and contents of dataset.json, the annotations and the chips of the dataset."""
        digest = hashlib.sha256()
        folders = [self.path / "annotations", *(self.path / "chips" / m.name for m in self.modalities)]
        files = [self.path / "dataset.json", *(f for folder in folders for f in sorted(folder.rglob("*")))]
        for file in files:
            if file.is_file():
                digest.update(str(file.relative_to(self.path)).encode() + b"\0")
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file.

    Raises:
        DatasetError: it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: a dataset directory needs it ({what}).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not valid JSON ({error}): write it again.") from None


def read_dataset(path: Path | str) -> DatasetSpec:
    """Read ``dataset.json`` of a dataset directory.

    Raises:
        DatasetError: it is missing or breaks the contract.
    """
    root = Path(path)
    source = root / "dataset.json"
    data = read_json(source, "name, version, classes and modalities")
    if not isinstance(data, dict):
        raise DatasetError(f"{source} is no JSON object: it needs name, version, classes and modalities.")
    classes = tuple(str(name) for name in data.get("classes") or ())
    if not classes or len(set(classes)) != len(classes):
        raise DatasetError(f"{source}: 'classes' must list at least one name, each once.")
    modalities = tuple(ModalitySpec.from_json(entry, source) for entry in data.get("modalities") or ())
    names = [m.name for m in modalities]
    if not names or len(set(names)) != len(names):
        raise DatasetError(f"{source}: 'modalities' must declare at least one modality, each once.")
    anchors = [str(entry["name"]) for entry in data["modalities"] if entry.get("anchor")]
    if len(anchors) > 1:
        raise DatasetError(f"{source}: {' and '.join(anchors)} are both marked 'anchor': mark only one.")
    return DatasetSpec(
        path=root,
        name=str(data.get("name") or root.name),
        version=str(data.get("version") or ""),
        classes=classes,
        modalities=modalities,
        anchor=anchors[0] if anchors else names[0],
        metadata={key: data.get(key) for key in ("grid", "provenance")},
    )


def read_annotations(source: Path, classes: tuple[str, ...]) -> tuple[Tile, ...]:
    """Read one COCO file into tiles, in the file's order.

    Raises:
        DatasetError: see :meth:`DatasetSpec.tiles`.
    """
    data = read_json(source, "COCO annotations")
    images, annotations = (data.get("images"), data.get("annotations")) if isinstance(data, dict) else (None, None)
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DatasetError(f"{source} is not COCO: it needs the lists 'images' and 'annotations'.")
    _check_entries(source, "images", images, ("id", "file_name", "width", "height"))
    _check_entries(source, "annotations", annotations, ("id", "image_id", "category_id"))
    instances: dict[int, list[Instance]] = {}
    for image in images:
        if image["id"] in instances:
            raise DatasetError(f"{source} lists image id {image['id']} twice: give each tile its own id.")
        instances[image["id"]] = []
    names = [str(image["file_name"]) for image in images]
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DatasetError(f"{source}: file_name '{name}' leads out of the dataset: give it relative to the chips.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{source} lists image '{twice}' twice: keep one entry per tile.")
    for entry in annotations:
        if not 1 <= entry["category_id"] <= len(classes):
            raise DatasetError(
                f"{source}: annotation {entry['id']} has category_id {entry['category_id']}, but dataset.json declares "
                f"classes 1 to {len(classes)} ({', '.join(classes)}): correct it or declare the class."
            )
        if entry["image_id"] not in instances:
            raise DatasetError(
                f"{source}: annotation {entry['id']} belongs to image {entry['image_id']}, which is not listed: "
                "add the image or remove the annotation."
            )
        ignored = bool(entry.get("iscrowd") or entry.get("ignore"))
        instances[entry["image_id"]].append(
            Instance(entry["id"], entry.get("segmentation"), entry["category_id"] - 1, ignored)
        )
    return tuple(
        Tile(
            image["id"],
            str(image["file_name"]),
            int(image["width"]),
            int(image["height"]),
            image.get("region"),
            tuple(instances[image["id"]]),
        )
        for image in images
    )


def _check_entries(source: Path, where: str, entries: list[Any], needed: tuple[str, ...]) -> None:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DatasetError(f"{source}: {where}[{number}] is no COCO entry: write an object.")
        if missing := [name for name in needed if name not in entry]:
            raise DatasetError(f"{source}: {where}[{number}] lacks '{missing[0]}': add it.")
