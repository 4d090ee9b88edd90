"""Labels beside image files: COCO, LabelMe and VIA (VGG Image Annotator) JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ml_backend.detector.annotations import CHIP_SUFFIXES, read_json
from ml_backend.detector.importing.draft import LabelledTile

MOST_FILES = 1_000_000
CIRCLE = 64  # corners of a circle's outline
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
Left = list[str]  # reasons why tiles or objects were left out


class Images:
    """The image files of a source, by name; files outside its folders are never used."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._by_name: dict[str, list[Path]] = {}
        folders = (walked for root in dict.fromkeys(root.resolve() for root in roots) for walked in os.walk(root))
        paths = (Path(folder) / name for folder, _, names in folders for name in names)
        for path in islice((path for path in paths if path.suffix.lower() in CHIP_SUFFIXES), MOST_FILES):
            self._by_name.setdefault(path.name, []).append(path)

    def find(self, name: str, split: str = "") -> Path | None:
        """The file of that name; of several, the one whose folders match the name or the split; None if ambiguous."""
        wanted = PurePosixPath(name.replace("\\", "/"))
        found = list(dict.fromkeys(self._by_name.get(wanted.name, [])))
        for rule in (lambda p: p.as_posix().endswith(f"/{wanted}"), lambda p: split_of(p.parent) == split):
            if len(found) > 1 and (fitting := [path for path in found if rule(path)]):
                found = fitting
        return found[0] if len(found) == 1 else None


def split_of(path: Path) -> str:
    """The split that is part of a file name; empty if there is none."""
    words = path.stem.lower().replace("-", "_").replace("2017", "").replace(".", "_").split("_")
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")


def coco(file: Path, data: Any, images: Images, left: Left) -> Iterator[LabelledTile]:
    """The tiles of a COCO file."""
    categories = data.get("categories") or []
    names = {str(c["id"]): str(c.get("name")) for c in categories if isinstance(c, dict) and "id" in c}
    split = split_of(file)
    listed = [image if isinstance(image, dict) else {} for image in data["images"]]
    count = Counter(str(image.get("id")) for image in listed)
    of_image: dict[str, list[Any]] = {}
    for entry in data["annotations"]:
        number = str(entry.get("image_id")) if isinstance(entry, dict) else ""
        of_image.setdefault(number, []).append(entry)
    if orphans := [number for number in of_image if number not in count]:
        lost = sum(len(of_image[number]) for number in orphans)
        left.append(f"{file.name}: {lost} objects are of images that are not listed (first: image_id {orphans[0]})")
    for image in listed:
        number, name = str(image.get("id")), image.get("file_name")
        path = images.find(name, split) if isinstance(name, str) else None
        if path is None:
            left.append(f"{file.name}: image {name!r} was not found, or several of that name")
            continue
        if count[number] > 1:
            left.append(f"{file.name}: {name} has the id {number} of another image")
            continue
        entries = of_image.get(number, [])
        unknown = [e.get("category_id") for e in entries if names.get(str(e.get("category_id"))) is None]
        if unknown:
            left.append(f"{file.name}: {name} has an object of category {unknown[0]}, which is not listed")
            continue
        objects = [_coco_object(entry, names) for entry in entries]
        size = _size(image.get("height"), image.get("width"))
        yield LabelledTile(path.name, objects, path, split=split, size=size)


def _size(height: Any, width: Any) -> tuple[int, int] | None:
    return (height, width) if type(height) is int and type(width) is int else None


def _coco_object(entry: dict[str, Any], names: dict[str, str]) -> tuple[str, Any, bool]:
    """(class, segmentation, ignored) of an entry; an object with only a box is an ignored region."""
    outline, box = entry.get("segmentation"), entry.get("bbox")
    ignored = bool(entry.get("iscrowd") or entry.get("ignore"))
    is_box = isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
    if not outline and isinstance(box, list) and is_box:
        outline, ignored = [_rectangle(box[0], box[1], box[0] + box[2], box[1] + box[3])], True
    return names[str(entry["category_id"])], outline, ignored


def labelme(file: Path, data: Any, images: Images, left: Left) -> Iterator[LabelledTile]:
    """The tile of a LabelMe file; shapes with the same label and group are parts of one object."""
    name = str(data.get("imagePath"))
    path = images.find(name)
    shapes = [shape if isinstance(shape, dict) else {} for shape in data["shapes"]]
    rings = [_labelme_ring(shape) for shape in shapes]
    if path is None:
        left.append(f"{file.name}: image {name!r} was not found, or several of that name")
    elif None in rings:
        kind = shapes[rings.index(None)].get("shape_type")
        left.append(f"{file.name}: a shape of type {kind!r} cannot be read as an area")
    else:
        groups: dict[Any, list[Any]] = {}
        for number, (shape, ring) in enumerate(zip(shapes, rings, strict=True)):
            group = shape.get("group_id")
            groups.setdefault((str(shape.get("label")), number if group is None else f"g{group}"), []).append(ring)
        size = _size(data.get("imageHeight"), data.get("imageWidth"))
        yield LabelledTile(path.name, [(key[0], parts, False) for key, parts in groups.items()], path, size=size)


def _labelme_ring(shape: dict[str, Any]) -> list[float] | None:
    points: Any = shape.get("points")
    if not _are_points(points) or not shape.get("label"):
        return None
    kind = shape.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) == 2:
        return _rectangle(*points[0], *points[1])
    if kind == "circle" and len(points) == 2:
        return _ellipse(*points[0], *[float(np.hypot(*np.subtract(points[1], points[0])))] * 2)
    return [float(v) for point in points for v in point] if kind == "polygon" and len(points) > 2 else None


def via(file: Path, data: Any, images: Images, left: Left, attribute: str) -> Iterator[LabelledTile]:
    """The tiles of a VIA project or export; ``attribute`` names the class (empty: the only one of each region)."""
    for entry in (data.get("_via_img_metadata") or data).values():
        if not isinstance(entry, dict) or "filename" not in entry:
            continue
        name, regions = str(entry["filename"]), entry.get("regions") or []
        members = regions.values() if isinstance(regions, dict) else regions
        path, read = images.find(name), [_via_region(region, attribute) for region in members]
        valid = [region for region in read if region]
        if path is None:
            left.append(f"{file.name}: image {name!r} was not found, or several of that name")
        elif len(valid) < len(read):
            left.append(f"{file.name}: a region of {name} has no area, or no one class (--class-attribute)")
        else:
            yield LabelledTile(path.name, valid, path)


def _via_region(region: Any, attribute: str) -> tuple[str, Any, bool] | None:
    whole = region if isinstance(region, dict) else {}
    shape, attributes = whole.get("shape_attributes"), whole.get("region_attributes")
    if not isinstance(shape, dict) or not isinstance(attributes, dict):
        return None
    chosen = attributes.get(attribute)
    if not attribute and len(attributes) < 2:
        chosen = next(iter(attributes.values()), "object")
    if isinstance(chosen, dict):  # of a checkbox
        chosen = next((key for key, on in chosen.items() if on), None)
    ring = _via_ring(shape)
    return (str(chosen), [ring], False) if chosen and ring else None


def _via_ring(shape: dict[str, Any]) -> list[float] | None:
    kind = shape.get("name")
    names = {
        "rect": ("x", "y", "width", "height"),
        "circle": ("cx", "cy", "r"),
        "ellipse": ("cx", "cy", "rx", "ry"),
    }.get(str(kind))
    if names:
        values: list[Any] = [shape.get(name) for name in names]
        if not all(type(value) in (int, float) for value in values):
            return None
        if kind == "rect":
            return _rectangle(values[0], values[1], values[0] + values[2], values[1] + values[3])
        return _ellipse(values[0], values[1], values[2], values[-1])
    points = list(zip(shape.get("all_points_x") or (), shape.get("all_points_y") or (), strict=False))
    if kind != "polygon" or not _are_points(points) or len(points) < 3:
        return None
    return [float(value) for point in points for value in point]


def _are_points(points: Any) -> bool:
    return isinstance(points, list) and all(
        isinstance(p, list | tuple) and len(p) == 2 and all(type(v) in (int, float) for v in p) for p in points
    )


def _rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def _ellipse(x: float, y: float, rx: float, ry: float) -> list[float]:
    angles = np.linspace(0, 2 * np.pi, CIRCLE, endpoint=False)
    ring: list[float] = np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1).ravel().tolist()
    return ring


def read_labels(file: Path) -> Any:
    """The content of a JSON file of labels."""
    return read_json(file, "labels")
