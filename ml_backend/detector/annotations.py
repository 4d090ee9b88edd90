"""COCO files: read into tiles and their objects, or refused in a sentence that names the file and the remedy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ml_backend.detector.errors import DatasetError, DetectorError

CHIP_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
MAX_PIXELS = 1 << 26  # of a tile: more would take gigabytes per modality


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

    @property
    def stem(self) -> str:
        """The file name without a chip's suffix: what the tile's chips of all modalities share."""
        return chip_stem(self.file_name)


def chip_stem(name: str) -> str:
    """A file name without a chip's suffix; other suffixes belong to the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in CHIP_SUFFIXES else str(path)


def read_json(path: Path, what: str, refusal: type[DetectorError] = DatasetError) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        what: it should hold, for sentences.
        refusal: the error to raise.

    Raises:
        DetectorError: it is missing, cannot be read, is not JSON, or names a key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := _repeated(key for key, _ in pairs):
            raise refusal(f"{path} holds the key '{twice}' twice in one object: remove one.")
        return dict(pairs)

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except FileNotFoundError:
        raise refusal(f"{path} is missing: give the right path, or write it ({what}).") from None
    except OSError as error:
        raise refusal(f"{path} cannot be read ({error.strerror}): it should hold {what}.") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise refusal(f"{path} is not valid JSON ({reason}): write it again.") from None


def read_annotations(source: Path, classes: tuple[str, ...]) -> tuple[Tile, ...]:
    """Read one COCO file into tiles, in the file's order.

    Raises:
        DatasetError: it is missing, is not COCO, lists an image twice or uses an undeclared class.
    """
    data = read_json(source, "COCO annotations")
    images, annotations = (data.get("images"), data.get("annotations")) if isinstance(data, dict) else (None, None)
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DatasetError(f"{source} is not COCO: it needs the lists 'images' and 'annotations'.")
    _check_entries(source, "images", images, ("id", "width", "height"), ("file_name",))
    _check_entries(source, "annotations", annotations, ("id", "image_id", "category_id"), ())
    _check_images(source, images)
    _check_categories(source, data.get("categories"), classes)
    instances: dict[int, list[Instance]] = {image["id"]: [] for image in images}
    if (twice := _repeated(entry["id"] for entry in annotations)) is not None:
        raise DatasetError(f"{source} lists annotation id {twice} twice: give each annotation its own id.")
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
    return tuple(_tile(image, instances[image["id"]]) for image in images)


def _tile(image: dict[str, Any], instances: list[Instance]) -> Tile:
    region = image.get("region")
    return Tile(
        image["id"],
        image["file_name"],
        image["width"],
        image["height"],
        None if region is None else str(region),
        tuple(instances),
    )


def _check_entries(
    source: Path, where: str, entries: list[Any], numbers: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DatasetError(f"{source}: {where}[{number}] is no COCO entry: write an object.")
        if missing := [name for name in (*numbers, *texts) if name not in entry]:
            raise DatasetError(f"{source}: {where}[{number}] lacks '{missing[0]}': add it.")
        for names, kind, wanted in ((numbers, int, "a whole number"), (texts, str, "text")):
            for name in names:
                if type(entry[name]) is not kind:
                    raise DatasetError(
                        f"{source}: {where}[{number}] has '{name}' = {_shown(entry[name])}: write {wanted}."
                    )


def _check_images(source: Path, images: list[dict[str, Any]]) -> None:
    if (twice := _repeated(image["id"] for image in images)) is not None:
        raise DatasetError(f"{source} lists image id {twice} twice: give each tile its own id.")
    for image in images:
        name = image["file_name"]
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DatasetError(f"{source}: file_name '{name}' leads out of the dataset: give it relative to the chips.")
        if not PurePosixPath(name).name or not name.isprintable():
            raise DatasetError(f"{source}: file_name {_shown(name)} of image {image['id']} names no file: correct it.")
        if min(image["width"], image["height"]) < 1 or image["width"] * image["height"] > MAX_PIXELS:
            raise DatasetError(
                f"{source}: image '{name}' is declared as {image['width']} x {image['height']} pixels: correct it, or "
                f"cut it into tiles of at most {MAX_PIXELS:,} pixels."
            )
    if twice := _repeated(chip_stem(image["file_name"]) for image in images):
        name = next(image["file_name"] for image in images if chip_stem(image["file_name"]) == twice)
        raise DatasetError(f"{source} lists image '{name}' twice: keep one entry per tile.")


def _check_categories(source: Path, categories: Any, classes: tuple[str, ...]) -> None:
    """COCO's own list of classes may be missing; where it is there, it must mean what dataset.json does."""
    for entry in categories if isinstance(categories, list) else ():
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(number) is int and 1 <= number <= len(classes) and name not in (None, classes[number - 1]):
            raise DatasetError(
                f"{source}: category {number} is named {_shown(name)}, but class {number} of dataset.json is "
                f"'{classes[number - 1]}': list the classes in the order of the categories."
            )


def _repeated(values: Iterable[Any]) -> Any:
    """The first value that occurs more than once; None if none does."""
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _shown(value: object) -> str:
    """A value as short text for a sentence."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
