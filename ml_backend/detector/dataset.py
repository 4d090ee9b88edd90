"""The dataset directory: its layout, as written by releases or by users, and its description ``dataset.json``.

::

    dataset.json                        name, version, classes, modalities, grid, provenance
    annotations/{train,val,test}.json   COCO
    chips/<modality>/<tile>.tif         [C, H, W] in the modality's own units; nodata is NaN or the declared value;
                                        PNG and JPEG, too; if the file is missing, the tile lacks the modality

Reading is fast and does not read pixels; :mod:`ml_backend.detector.validation` checks the rest before training.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from contracts.dataset import ANNOTATIONS_FOLDER, DATASET_FILE, SPLITS, annotation_file, chip_folder
from ml_backend.detector.annotations import CHIP_SUFFIXES, AnnotatedInstance, Tile, read_annotations, read_json
from ml_backend.detector.errors import DatasetError
from ml_backend.detector.problems import Report, attempt, refuse

__all__ = ["AnnotatedInstance", "DatasetSpec", "ModalitySpec", "Tile", "read_annotations", "read_dataset", "read_json"]

_ON_DISK = (*CHIP_SUFFIXES, *(suffix.upper() for suffix in CHIP_SUFFIXES))
MODALITY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class ModalitySpec:
    """A modality as declared in ``dataset.json``.

    ``mean`` and ``std`` are per band, in the modality's own units, over valid training pixels; empty until computed.
    A modality with the unit metre is a height: relative differences matter, not absolute values.
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
        if not isinstance(data, dict):
            raise DatasetError(f"{source}: a modality is no JSON object: it needs a name and its bands.")
        name = str(data.get("name", ""))
        if not MODALITY_NAME.fullmatch(name):
            raise DatasetError(
                f"{source}: the modality name '{name}' is unusable: use lower-case letters, digits, '_' and '-'."
            )
        bands = _texts(data.get("bands"))
        if not bands:
            raise DatasetError(f"{source}: modality '{name}' declares no bands: list their names under 'bands'.")
        mean, std = (_numbers(data.get(key) or []) for key in ("mean", "std"))
        if mean is None or std is None or not (len(mean) == len(std) in (0, len(bands)) and min(std, default=1) > 0):
            raise DatasetError(
                f"{source}: 'mean' and positive 'std' of modality '{name}' need one value for each of its "
                f"{len(bands)} bands: correct them, or leave both out to have them computed."
            )
        limits = _numbers(data.get("range") or [])
        if limits is None or len(limits) not in (0, 2) or limits != tuple(sorted(limits)):
            raise DatasetError(
                f"{source}: 'range' of modality '{name}' must be its smallest and largest value: correct it."
            )
        nodata = data.get("nodata")
        if nodata is not None and type(nodata) is not float and (type(nodata) is not int or abs(nodata) > 1 << 63):
            raise DatasetError(f"{source}: 'nodata' of modality '{name}' must be a number or null: correct it.")
        unit = str(data.get("unit") or "")
        return cls(name, bands, (limits[0], limits[1]) if limits else None, nodata, mean, std, unit)

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
class DatasetSpec:
    """A dataset directory whose ``dataset.json`` has been read."""

    path: Path
    name: str
    version: str
    classes: tuple[str, ...]
    modalities: tuple[ModalitySpec, ...]
    anchor: str
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def file(self) -> Path:
        """Its ``dataset.json``."""
        return self.path / DATASET_FILE

    def modality(self, name: str) -> ModalitySpec:
        """The declared modality of that name (KeyError if there is none)."""
        return {m.name: m for m in self.modalities}[name]

    def annotation_file(self, split: str) -> Path:
        """Path of the annotation file of a split."""
        return annotation_file(self.path, split)

    def has_split(self, split: str) -> bool:
        """Whether the split has an annotation file."""
        return self.annotation_file(split).is_file()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits with an annotation file, in the order of :data:`contracts.dataset.SPLITS`."""
        return tuple(split for split in SPLITS if self.has_split(split))

    def tiles(self, split: str, report: Report = refuse) -> tuple[Tile, ...]:
        """Read the tiles of a split; problems are passed to ``report`` (see :func:`read_annotations`).

        Raises:
            DatasetError: the file is missing, is not COCO, lists an image twice or uses an undeclared class.
        """
        return read_annotations(self.annotation_file(split), self.classes, report)

    @cached_property
    def longest_side(self) -> int:
        """Longest side of all training tiles in pixels: detectors cut larger tiles into windows.

        Raises:
            DatasetError: see :meth:`tiles`; or there are no tiles.
        """
        tiles = self.tiles("train")
        if not tiles:
            raise DatasetError(f"{self.annotation_file('train')} lists no tiles: add the training tiles.")
        return max(max(tile.width, tile.height) for tile in tiles)

    def usable_tiles(self, split: str) -> tuple[Tile, ...]:
        """The tiles of a split that have a chip of at least one of the modalities.

        Tiles without a DEM are of no use to a detector of DEMs alone, but a multimodal detector uses them.

        Raises:
            DatasetError: see :meth:`tiles`.
        """
        names = [modality.name for modality in self.modalities]
        return tuple(tile for tile in self.tiles(split) if any(self.chip_file(name, tile) for name in names))

    def chip_file(self, modality: str, tile: Tile) -> Path | None:
        """The tile's chip of a modality, whatever its suffix (``.TIF`` too); None when the tile lacks the modality.

        Raises:
            DatasetError: there is a folder in its place.
        """
        folder = chip_folder(self.path, modality)
        for name in (tile.file_name, *(f"{tile.stem}{suffix}" for suffix in _ON_DISK)):
            if (folder / name).is_file():
                return folder / name
            if (folder / name).is_dir():
                raise DatasetError(f"{folder / name} is a folder, but a chip is expected there: remove it.")
        return None

    def with_modalities(self, modalities: tuple[ModalitySpec, ...]) -> DatasetSpec:
        """A copy with other modalities, for example normalised ones."""
        return replace(self, modalities=modalities)

    def seen_by(self, names: Iterable[str]) -> DatasetSpec:
        """A copy with only some of its modalities, in the given order."""
        return self.with_modalities(tuple(map(self.modality, names)))

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over the names and contents of dataset.json, the annotations and the chips of the dataset."""
        digest = hashlib.sha256()
        folders = [self.path / ANNOTATIONS_FOLDER, *(chip_folder(self.path, m.name) for m in self.modalities)]
        files = [self.file, *(f for folder in folders for f in sorted(folder.rglob("*")))]
        try:
            for file in files:
                if file.is_file():
                    digest.update(str(file.relative_to(self.path)).encode(errors="surrogateescape") + b"\0")
                    with file.open("rb") as stream:
                        digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DatasetError(f"{error.filename} cannot be read ({error.strerror}): allow it, or remove it.") from None
        return digest.hexdigest()


def read_dataset(path: Path | str, report: Report = refuse) -> DatasetSpec:
    """Read ``dataset.json`` of a dataset directory.

    Args:
        path: the directory.
        report: called with each unusable modality, which is then left out; by default it raises.

    Raises:
        DatasetError: it is missing or breaks the contract.
    """
    root = Path(path)
    source = root / DATASET_FILE
    data = read_json(source, "name, version, classes and modalities")
    if not isinstance(data, dict):
        raise DatasetError(f"{source} is no JSON object: it needs name, version, classes and modalities.")
    classes = _texts(data.get("classes"))
    if not classes or len(set(classes)) != len(classes):
        raise DatasetError(f"{source}: 'classes' must list at least one name, each once.")
    entries = data["modalities"] if isinstance(data.get("modalities"), list) else []
    read = [attempt(report, "modality", source, partial(ModalitySpec.from_json, entry, source)) for entry in entries]
    modalities = tuple(modality for modality in read if modality)
    names = [m.name for m in modalities]
    if not names or len(set(names)) != len(names):
        raise DatasetError(f"{source}: 'modalities' must declare at least one modality, each once.")
    anchors = [str(entry["name"]) for entry, m in zip(entries, read, strict=True) if m and entry.get("anchor")]
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


def _texts(values: Any) -> tuple[str, ...]:
    """A list of names from JSON; empty if it is anything else."""
    is_list = isinstance(values, list) and all(isinstance(value, str) and value for value in values)
    return tuple(values) if is_list else ()


def _numbers(values: Any) -> tuple[float, ...] | None:
    """A list of finite numbers from JSON; None if it is anything else."""
    if not isinstance(values, list | tuple):
        return None
    kinds = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return tuple(values) if kinds and all(abs(value) < 1e30 for value in values) else None
