"""Importing labelled data into a dataset directory: COCO, LabelMe and VIA JSON beside images, and numpy archives."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_backend.detector.dataset import MODALITY_NAME
from ml_backend.detector.errors import ConfigError, DatasetError
from ml_backend.detector.importing.annotated import Images, coco, labelme, read_labels, via
from ml_backend.detector.importing.draft import Draft, LabelledTile
from ml_backend.detector.importing.stacks import stack

FORMATS = ("coco", "labelme", "via", "npz")


@dataclass(frozen=True)
class ImportOptions:
    """Options for reading a source.

    Attributes:
        format: one of :data:`FORMATS`; empty detects it from the files' content.
        images: folder of the images, if not that of the source.
        modality: of the images.
        arrays: key of the array of each modality, in archives.
        labels: key of the array of labels, in archives.
        semantic: whether numbers of labels in archives are classes, not objects.
        classes: names of the classes in archives.
        class_attribute: attribute of VIA's regions that holds their class.
        val: share of the tiles for the validation split, if the source has no splits.
        test: share of the tiles for the test split, likewise.
        seed: of the random split.
    """

    format: str = ""
    images: Path | None = None
    modality: str = "rgb"
    arrays: Mapping[str, str] = field(default_factory=dict)
    labels: str = ""
    semantic: bool = False
    classes: Sequence[str] = ("object",)
    class_attribute: str = ""
    val: float = 0.15
    test: float = 0.15
    seed: int = 0


@dataclass(frozen=True)
class Imported:
    """The result: the format, the numbers of tiles and objects, the classes, and what was left out and why."""

    format: str
    tiles: int
    objects: int
    classes: tuple[str, ...]
    left_out: tuple[str, ...]


def import_dataset(source: Path, out: Path, options: ImportOptions) -> Imported:
    """Write a dataset directory from a file or folder of labels.

    A tile of which any label cannot be read is left out, since the missing object would be taken for background.

    Args:
        source: a JSON file, an archive, or a folder of them.
        out: a new directory.
        options: how to read it.

    Raises:
        ConfigError: ``out`` exists, or an option is invalid.
        DatasetError: nothing could be read.
    """
    if out.exists():
        raise ConfigError(f"{out} exists: give the name of a new folder.")
    for name in (options.modality, *options.arrays):
        if not MODALITY_NAME.fullmatch(name):
            raise ConfigError(f"The modality name '{name}' is unusable: use lower-case letters, digits, '_' and '-'.")
    if not (0 <= options.val < 1 and 0 <= options.test < 1 and options.val + options.test < 1):
        raise ConfigError("The shares of val and test are invalid: give shares whose sum is less than 1.")
    if not source.exists():
        raise DatasetError(f"{source} does not exist: check the path.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        draft = Draft(Path(temporary) / "dataset", options.modality)
        draft.root.mkdir()
        found = ""
        for kind, tile in _tiles(source, options, draft.left_out):
            draft.add(tile)
            found = kind
        draft.finish(out.name, (options.val, options.test), options.seed)
        draft.root.rename(out)
    objects = sum(len(tile.objects) for tile, _, _ in draft.tiles)
    return Imported(found, len(draft.tiles), objects, tuple(draft.classes), tuple(draft.left_out))


def _tiles(source: Path, options: ImportOptions, left: list[str]) -> Iterator[tuple[str, LabelledTile]]:
    folder = source if source.is_dir() else source.parent
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if source.is_dir() else [source]
    if options.format in ("", "npz"):
        for file in files:
            if file.suffix.lower() == ".npz":
                keys = (options.arrays, options.labels, options.classes, options.semantic, left)
                yield from (("npz", tile) for tile in stack(file, *keys))
    if options.format == "npz":
        return
    images = Images([*([options.images] if options.images else []), folder])
    for file in files:
        if file.suffix.lower() != ".json":
            continue
        data = read_labels(file)
        kind = _kind(data)
        if kind == "" or options.format not in ("", kind):
            continue
        if kind == "via":
            tiles = via(file, data, images, left, options.class_attribute)
        else:
            tiles = (coco if kind == "coco" else labelme)(file, data, images, left)
        yield from ((kind, tile) for tile in tiles)


def _kind(data: Any) -> str:
    """The format of a JSON file of labels; empty if it is unknown."""
    if not isinstance(data, dict):
        return ""
    if isinstance(data.get("images"), list) and isinstance(data.get("annotations"), list):
        return "coco"
    if isinstance(data.get("shapes"), list) and "imagePath" in data:
        return "labelme"
    entries = data.get("_via_img_metadata", data)
    members = entries.values() if isinstance(entries, dict) else ()
    is_via = any(isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in members)
    return "via" if is_via else ""
