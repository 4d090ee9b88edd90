"""Reading COCO files into tiles and their annotated objects; errors name the file and the remedy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ml_backend.detector.errors import DatasetError, DetectorError
from ml_backend.detector.problems import Problem, Report, refuse

CHIP_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
T = TypeVar("T")
MAX_PIXELS = 1 << 26  # of a tile: more would take gigabytes per modality


@dataclass(frozen=True)
class AnnotatedInstance:
    """One annotated object: COCO segmentation (polygon list or RLE), 0-based class index, whether it is ignored."""

    id: int
    segmentation: Any
    class_index: int
    ignored: bool


@dataclass(frozen=True)
class Tile:
    """One image of a split, with its annotated objects; ``width`` and ``height`` in pixels."""

    id: int
    file_name: str
    width: int
    height: int
    region: str | None
    instances: tuple[AnnotatedInstance, ...]

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
        what: what it should hold, for error messages.
        refusal: the type of error to raise.

    Raises:
        DetectorError: it is missing, cannot be read, is not JSON, or names a key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := _repeated(key for key, _ in pairs):
            raise refusal(f"{path} holds the key '{twice[0]}' twice in one object: remove one.")
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


def read_annotations(source: Path, classes: tuple[str, ...], report: Report = refuse) -> tuple[Tile, ...]:
    """Read one COCO file into tiles, in the file's order.

    Args:
        source: the file.
        classes: names, by category_id from 1 on.
        report: called with each problem of an entry, which is then left out; by default it raises.

    Raises:
        DatasetError: the file is missing or not COCO; by default also if it lists an image twice, uses an undeclared
            class, ...
    """
    data = read_json(source, "COCO annotations")
    images, annotations = (data.get("images"), data.get("annotations")) if isinstance(data, dict) else (None, None)
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DatasetError(f"{source} is not COCO: it needs the lists 'images' and 'annotations'.")
    images = _valid_entries(source, "images", images, ("id", "width", "height"), ("file_name",), report)
    annotations = _valid_entries(source, "annotations", annotations, ("id", "image_id", "category_id"), (), report)
    images = _valid_images(source, images, report)
    _check_categories(source, data.get("categories"), classes, report)
    instances: dict[int, list[AnnotatedInstance]] = {image["id"]: [] for image in images}
    listed = {image.get("id") for image in data["images"] if isinstance(image, dict)}
    for twice in _repeated(entry["id"] for entry in annotations):
        text = f"{source} lists annotation id {twice} twice: give each annotation its own id."
        report(Problem("annotation id twice", text, source, annotation=twice))
    for entry in annotations:
        number = entry["id"]
        if not 1 <= entry["category_id"] <= len(classes):
            text = (
                f"{source}: annotation {number} has category_id {entry['category_id']}, but dataset.json declares "
                f"classes 1 to {len(classes)} ({', '.join(classes)}): correct it or declare the class."
            )
            report(Problem("undeclared class", text, source, annotation=number))
        elif entry["image_id"] not in instances:
            if entry["image_id"] not in listed:  # else its image is what is wrong
                text = (
                    f"{source}: annotation {number} belongs to image {entry['image_id']}, which is not listed: "
                    "add the image or remove the annotation."
                )
                report(Problem("annotation of no image", text, source, annotation=number))
        else:
            ignored = bool(entry.get("iscrowd") or entry.get("ignore"))
            instances[entry["image_id"]].append(
                AnnotatedInstance(number, entry.get("segmentation"), entry["category_id"] - 1, ignored)
            )
    return tuple(_tile(image, instances[image["id"]]) for image in images)


def _tile(image: dict[str, Any], instances: list[AnnotatedInstance]) -> Tile:
    region = image.get("region")
    return Tile(
        image["id"],
        image["file_name"],
        image["width"],
        image["height"],
        None if region is None else str(region),
        tuple(instances),
    )


def _valid_entries(
    source: Path, where: str, entries: list[Any], numbers: tuple[str, ...], texts: tuple[str, ...], report: Report
) -> list[dict[str, Any]]:
    """The entries with all required keys and types; the others are reported."""
    valid = []
    for number, entry in enumerate(entries):
        if fault := _entry_fault(entry, numbers, texts):
            report(Problem(f"broken entry in {where}", f"{source}: {where}[{number}] {fault}.", source))
        else:
            valid.append(entry)
    return valid


def _entry_fault(entry: Any, numbers: tuple[str, ...], texts: tuple[str, ...]) -> str:
    if not isinstance(entry, dict):
        return "is not a COCO entry: write an object"
    if missing := [name for name in (*numbers, *texts) if name not in entry]:
        return f"lacks '{missing[0]}': add it"
    for names, kind, wanted in ((numbers, int, "a whole number"), (texts, str, "text")):
        for name in names:
            if type(entry[name]) is not kind:
                return f"has '{name}' = {_shown(entry[name])}: write {wanted}"
    return ""


def _valid_images(source: Path, images: list[dict[str, Any]], report: Report) -> list[dict[str, Any]]:
    """The usable images; the others are reported."""
    for twice in _repeated(image["id"] for image in images):
        report(Problem("image id twice", f"{source} lists image id {twice} twice: give each tile its own id.", source))
    valid = []
    for image in images:
        if fault := _image_fault(image):
            report(Problem("unusable image", f"{source}: {fault}.", source, image["file_name"]))
        else:
            valid.append(image)
    for twice in _repeated(chip_stem(image["file_name"]) for image in valid):
        name = next(image["file_name"] for image in valid if chip_stem(image["file_name"]) == twice)
        report(Problem("tile twice", f"{source} lists image '{name}' twice: keep one entry per tile.", source, name))
    unique: dict[str, dict[str, Any]] = {}
    for image in valid:
        unique.setdefault(chip_stem(image["file_name"]), image)
    return list({image["id"]: image for image in reversed(unique.values())}.values())[::-1]


def _image_fault(image: dict[str, Any]) -> str:
    name = image["file_name"]
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return f"file_name '{name}' leads out of the dataset: give it relative to the chips"
    if not PurePosixPath(name).name or not name.isprintable():
        return f"file_name {_shown(name)} of image {image['id']} names no file: correct it"
    if min(image["width"], image["height"]) < 1 or image["width"] * image["height"] > MAX_PIXELS:
        return (
            f"image '{name}' is declared as {image['width']} x {image['height']} pixels: correct it, or "
            f"cut it into tiles of at most {MAX_PIXELS:,} pixels"
        )
    return ""


def _check_categories(source: Path, categories: Any, classes: tuple[str, ...], report: Report) -> None:
    """COCO's own list of classes may be missing; if present, it must agree with that of dataset.json."""
    for entry in categories if isinstance(categories, list) else ():
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(number) is int and 1 <= number <= len(classes) and name not in (None, classes[number - 1]):
            text = (
                f"{source}: category {number} is named {_shown(name)}, but class {number} of dataset.json is "
                f"'{classes[number - 1]}': list the classes in the order of the categories."
            )
            report(Problem("classes in another order", text, source))


def _repeated(values: Iterable[T]) -> list[T]:
    """The values that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def _shown(value: object) -> str:
    """A value as short text for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
