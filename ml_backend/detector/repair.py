"""Repairing unambiguous problems of a dataset's annotations, into a new directory.

An object never becomes background: what cannot be repaired stays as it is and is reported. Repaired are

- outlines that cross themselves, where the even-odd and the winding rule cover the same pixels (except for a
  share of :data:`UNCLEAR`): they become the RLE of those pixels;
- parts with fewer than three points or outside the tile, of objects that have other parts; objects that lie outside
  their tile or cover no pixel; annotations of images that are not listed: these are removed;
- objects with a box but no outline: the box becomes an ignored region, neither object nor background;
- ids and sizes written as 7.0, duplicate annotation ids, and categories numbered differently from the classes in
  dataset.json, if their names identify them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contracts.dataset import SPLITS, annotation_file
from ml_backend.detector.annotations import MAX_PIXELS, read_json
from ml_backend.detector.dataset import read_dataset
from ml_backend.detector.errors import ConfigError, DatasetError
from ml_backend.detector.masks import BoolArray, encode_rle
from ml_backend.detector.outlines import CROSSED, EMPTY, FEW_POINTS, OUTSIDE, Size, segmentation_fault, winding

UNCLEAR = 0.01  # share of an outline's pixels on which the two rules may differ
REPORT = "repairs.json"
WHOLE = ("id", "image_id", "category_id", "width", "height")


@dataclass(frozen=True)
class Change:
    """One repair: the file (relative to the dataset), the annotation (if it concerns one), and what was done."""

    file: str
    annotation: int | None
    text: str


def repair(dataset_dir: Path, out: Path) -> list[Change]:
    """Write a repaired copy of the dataset; ``repairs.json`` in it lists every change.

    Args:
        dataset_dir: the dataset, which is not changed.
        out: a new directory.

    Raises:
        ConfigError: ``out`` exists, or lies within the dataset.
        DatasetError: dataset.json is unusable, or an annotation file is not COCO.
    """
    if out.exists():
        raise ConfigError(f"{out} exists: give the name of a new folder.")
    if out.resolve().is_relative_to(dataset_dir.resolve()):
        raise ConfigError(f"{out} lies within {dataset_dir}, which stays as it is: give a folder elsewhere.")
    classes = read_dataset(dataset_dir, lambda problem: None).classes
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        draft = Path(temporary) / "dataset"
        shutil.copytree(dataset_dir, draft)
        changes: list[Change] = []
        for file in (annotation_file(draft, split) for split in SPLITS):
            if file.is_file():
                data = read_json(file, "COCO annotations")
                changes += repair_annotations(data, classes, f"annotations/{file.name}")
                file.write_text(json.dumps(data), encoding="utf-8")
        (draft / REPORT).write_text(json.dumps([vars(change) for change in changes], indent=2), encoding="utf-8")
        draft.rename(out)
    return changes


def repair_annotations(data: Any, classes: Sequence[str], file: str) -> list[Change]:
    """Repair COCO annotations in place.

    Args:
        data: as read from the file.
        classes: of dataset.json, in its order.
        file: name of the file in the changes.

    Raises:
        DatasetError: it is not COCO.
    """
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations")):
        raise DatasetError(f"{file} is not COCO: it needs the lists 'images' and 'annotations'.")
    changes: list[Change] = []

    def changed(annotation: Any, text: str) -> None:
        changes.append(Change(file, annotation if type(annotation) is int else None, text))

    entries = [entry for key in ("images", "annotations", "categories") for entry in data.get(key) or ()]
    for entry in entries:
        for key in WHOLE if isinstance(entry, dict) else ():
            if type(value := entry.get(key)) is float and value.is_integer():
                entry[key] = int(value)
                changed(entry["id"], f"wrote '{key}' {value} as a whole number")
    _renumber_classes(data, classes, changed)
    images = {i["id"]: i for i in data["images"] if isinstance(i, dict) and type(i.get("id")) is int}
    kept: list[Any] = []
    seen: dict[int, dict[str, Any]] = {}
    largest = max((a["id"] for a in data["annotations"] if isinstance(a, dict) and type(a.get("id")) is int), default=0)
    for entry in data["annotations"]:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or type(entry.get("image_id")) is not int:
            kept.append(entry)
            continue
        if entry["image_id"] not in images:
            changed(entry["id"], f"removed it: its image {entry['image_id']} is not listed")
            continue
        if entry == seen.get(entry["id"]):
            changed(entry["id"], "removed it: it is listed twice")
            continue
        if entry["id"] in seen:
            largest += 1
            changed(entry["id"], f"gave the second annotation of this id the id {largest}")
            entry = {**entry, "id": largest}
        seen[entry["id"]] = entry
        text, repaired = _repaired(entry, images[entry["image_id"]])
        if text:
            changed(entry["id"], text)
        if repaired is not None:
            kept.append(repaired)
    data["annotations"] = kept
    return changes


def _renumber_classes(data: dict[str, Any], classes: Sequence[str], changed: Any) -> None:
    """Renumber categories to the classes with their names, if all names are known."""
    categories = data.get("categories")
    entries = categories if isinstance(categories, list) else []
    if not entries or not all(isinstance(c, dict) and type(c.get("id")) is int for c in entries):
        return
    names = {entry["id"]: entry.get("name") for entry in entries}
    if len(names) < len(entries) or not set(names.values()) <= set(classes) or len(set(names.values())) < len(names):
        return
    number = {old: classes.index(name) + 1 for old, name in names.items()}
    if all(old == new for old, new in number.items()):
        return
    for entry in entries:
        entry["id"] = number[entry["id"]]
    for entry in data["annotations"]:
        if isinstance(entry, dict) and entry.get("category_id") in number:
            entry["category_id"] = number[entry["category_id"]]
    mapping = ", ".join(f"{old} is {new} ({classes[new - 1]})" for old, new in number.items())
    changed(None, f"numbered the categories as dataset.json does: {mapping}")


def _repaired(entry: dict[str, Any], image: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """What was done to an annotation ('' for nothing), and the repaired annotation; None if it is removed."""
    height, width = image.get("height"), image.get("width")
    if type(height) is not int or type(width) is not int or min(height, width) < 1 or height * width > MAX_PIXELS:
        return "", entry
    size, outline = (height, width), entry.get("segmentation")
    fault = segmentation_fault(size, outline)
    if fault is None:
        return "", entry
    if isinstance(outline, dict):
        return ("removed it: it covers no pixel", None) if fault.kind == EMPTY else ("", entry)
    faults = [segmentation_fault(size, [ring]) for ring in outline] if isinstance(outline, list) else []
    kinds = [fault.kind if fault else "" for fault in faults]
    if kinds and set(kinds) == {OUTSIDE}:
        return "removed it: it lies outside its tile", None
    if set(kinds) <= {OUTSIDE, FEW_POINTS}:
        return _boxed(entry, size)
    rest = [ring for ring, kind in zip(outline or [], kinds, strict=True) if kind not in (OUTSIDE, FEW_POINTS)]
    dropped = len(kinds) - len(rest)
    text = f"left out {dropped} of its parts, outside the tile or of fewer than three points" if dropped else ""
    left = segmentation_fault(size, rest)
    if left is None:
        return text, {**entry, "segmentation": rest}
    return _uncrossed({**entry, "segmentation": rest}, size, text) if left.kind == CROSSED else ("", entry)


def _boxed(entry: dict[str, Any], size: Size) -> tuple[str, dict[str, Any]]:
    """Make the box of an object without an outline an ignored region."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or any(type(value) not in (int, float) for value in box):
        return "", entry
    x, y, width, height = box
    ring = [x, y, x + width, y, x + width, y + height, x, y + height]
    if not (width > 0 and height > 0) or segmentation_fault(size, [ring]):
        return "", entry
    return "had a box but no outline: the box is now an ignored region", {**entry, "segmentation": [ring], "ignore": 1}


def _uncrossed(entry: dict[str, Any], size: Size, done: str) -> tuple[str, dict[str, Any] | None]:
    """Replace an outline that crosses itself by the RLE of its pixels; unchanged where these are ambiguous."""
    covered: BoolArray = np.zeros(size, dtype=bool)
    unclear = 0
    try:
        for ring in entry["segmentation"]:
            around = winding(ring, size)
            covered |= around % 2 == 1
            unclear += int(np.count_nonzero((around != 0) & (around % 2 == 0)))
    except ValueError:
        return done, entry
    pixels = int(np.count_nonzero(covered))
    if unclear > UNCLEAR * pixels:
        return done, entry
    if not pixels:
        return "removed it: its outline crosses itself and covers no pixel", None
    outline = {"size": list(size), "counts": encode_rle(covered)["counts"].decode("ascii")}
    text = f"its outline crossed itself: it is now an RLE of its {pixels} pixels"
    return "; ".join(filter(None, (done, text))), {**entry, "segmentation": outline}
