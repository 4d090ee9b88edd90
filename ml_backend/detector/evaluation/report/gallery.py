"""Hits, misses and false alarms as pictures: a crop of the tile in two modalities, with both outlines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from ml_backend.detector.chips import ChipInput, read_tile
from ml_backend.detector.evaluation.coco import MATCH_IOU, Floats
from ml_backend.detector.evaluation.findings import Findings
from ml_backend.detector.evaluation.matching import Ints, Matches, Pairs
from ml_backend.detector.evaluation.report.pictures import Crop, crop_around, picture
from ml_backend.detector.masks import FloatArray, mask_rings

EACH = 20  # pictures per section
MORE = 500  # outlines of crowded tiles that are drawn at most


@dataclass(frozen=True)
class Outline:
    """An SVG path in tile pixels; ``kind`` is truth, prediction or ignored, ``subject`` marks the entry's instance."""

    path: str
    kind: str
    subject: bool


@dataclass(frozen=True)
class GalleryEntry:
    """One picture of the gallery; ``pictures`` are (modality, PNG data URI or None where the tile lacks it)."""

    tile: str
    region: str | None
    text: str
    crop: Crop
    pictures: list[tuple[str, str | None]]
    outlines: list[Outline]


@dataclass(frozen=True)
class Section:
    """``total`` is the number of all, ``order`` the order by which the shown ones were chosen."""

    title: str
    order: str
    total: int
    entries: list[GalleryEntry]


def gallery(findings: Findings, matches: Matches, pairs: Pairs, threshold: float) -> list[Section]:
    """The three sections at a score threshold, with at most :data:`EACH` entries each."""
    return _Gallery(findings, matches, pairs, threshold).sections()


class _Gallery:
    """Indexes predictions and annotations by tile."""

    def __init__(self, findings: Findings, matches: Matches, pairs: Pairs, threshold: float) -> None:
        self.findings, self.pairs = findings, pairs
        row = matches.at(MATCH_IOU)
        kept = (matches.score >= threshold) & ~matches.ignored[row]
        self.hits: Ints = np.flatnonzero(kept & matches.hit[row])
        self.alarms: Ints = np.flatnonzero(kept & ~matches.hit[row])
        self.scores: Floats = matches.score
        index = {tile.id: number for number, tile in enumerate(findings.tiles)}
        self.truths: list[list[dict[str, Any]]] = [[] for _ in findings.tiles]
        self.kept: list[list[int]] = [[] for _ in findings.tiles]
        for annotation in findings.truth["annotations"]:
            self.truths[index[annotation["image_id"]]].append(annotation)
        self.tile_of = [index[p["image_id"]] for p in findings.predictions]
        self.detections = [d for tile in findings.detections for d in tile]
        for number, prediction in enumerate(findings.predictions):
            if prediction["score"] >= threshold:
                self.kept[self.tile_of[number]].append(number)
        anchor = findings.dataset.anchor
        names = sorted((m.name for m in findings.dataset.modalities), key=lambda name: name != anchor)
        self.modalities = names[:2]  # the sort is stable: the anchor, then the first of the others
        self._chip = cache(self._read)

    def sections(self) -> list[Section]:
        hits = sorted(self.hits.tolist(), key=lambda d: self.pairs.iou[d])
        alarms = sorted(self.alarms.tolist(), key=lambda d: -self.scores[d])
        found = set(self.pairs.partner[self.hits].tolist())
        missed = [
            (tile, annotation)
            for tile, annotations in enumerate(self.truths)
            for annotation in annotations
            if not annotation["iscrowd"] and annotation["id"] not in found
        ]
        missed.sort(key=lambda pair: -pair[1]["area"])
        return [
            Section("False alarms", "highest scores first", len(alarms), [self._alarm(d) for d in alarms[:EACH]]),
            Section("Misses", "largest first", len(missed), [self._miss(*pair) for pair in missed[:EACH]]),
            Section("Hits", "lowest IoU first", len(hits), [self._hit(d) for d in hits[:EACH]]),
        ]

    def _hit(self, d: int) -> GalleryEntry:
        return self._of_detection(d, f"IoU {self.pairs.iou[d]:.2f}", int(self.pairs.partner[d]))

    def _alarm(self, d: int) -> GalleryEntry:
        prediction = self.findings.predictions[self.pairs.prediction[d]]
        nearest, _ = self._nearest(prediction["segmentation"], self.truths[self.tile_of[self.pairs.prediction[d]]])
        text = f"overlaps an instance with IoU {nearest:.2f}" if nearest else "nothing is there"
        if nearest >= MATCH_IOU:
            text = f"a duplicate or a wrong class for an instance, IoU {nearest:.2f}"
        return self._of_detection(d, text)

    def _of_detection(self, d: int, text: str, partner: int = 0) -> GalleryEntry:
        number = int(self.pairs.prediction[d])
        detection, tile = self.detections[number], self.tile_of[number]
        certainty = f"{detection.class_name}, score {detection.score:.2f}"
        if detection.probability is not None:
            certainty += f" (calibrated {detection.probability:.2f})"
        box = coco_mask.toBbox(self.findings.predictions[number]["segmentation"])
        return self._entry(tile, f"{certainty}; {text}", box, prediction=number, truth=partner)

    def _miss(self, tile: int, annotation: dict[str, Any]) -> GalleryEntry:
        on_tile = [self.findings.predictions[n] for n in range(len(self.tile_of)) if self.tile_of[n] == tile]
        nearest, best = self._nearest(annotation["segmentation"], on_tile)
        name = self.findings.dataset.classes[annotation["category_id"] - 1]
        text = f"{name}, {annotation['area']:,.0f} px; "
        text += (
            f"nearest detection: IoU {nearest:.2f}, score {on_tile[best]['score']:.2f}" if nearest else "no detection"
        )
        return self._entry(tile, text, annotation["bbox"], truth=annotation["id"])

    def _nearest(self, segmentation: Any, others: Sequence[dict[str, Any]]) -> tuple[float, int]:
        """The largest IoU with any of the others, and which it is."""
        if not others:
            return 0.0, -1
        overlaps = coco_mask.iou([segmentation], [o["segmentation"] for o in others], [0] * len(others))[0]
        return float(overlaps.max()), int(overlaps.argmax())

    def _entry(
        self, tile: int, text: str, box: Sequence[float], *, truth: int = 0, prediction: int = -1
    ) -> GalleryEntry:
        own = self.findings.tiles[tile]
        crop, chip = crop_around(box, own.width, own.height), self._chip(tile)
        outlines = [
            Outline(path, "ignored" if a["iscrowd"] else "truth", a["id"] == truth)
            for a in self.truths[tile][:MORE]
            for path in _mask_paths(a["segmentation"])
        ]
        outlines += [
            Outline(_path(self.detections[number].rings), "prediction", number == prediction)
            for number in self.kept[tile][:MORE]
        ]
        pictures = [(name, picture(chip, name, crop)) for name in self.modalities]
        return GalleryEntry(own.file_name, own.region, text, crop, pictures, sorted(outlines, key=lambda o: o.subject))

    def _read(self, tile: int) -> ChipInput:
        dataset = self.findings.dataset
        shown = [m for m in dataset.modalities if m.name in self.modalities]
        return read_tile(dataset, shown, self.findings.tiles[tile])


def _mask_paths(segmentation: Any) -> Iterable[str]:
    """One path per part of a mask."""
    labels, count = ndimage.label(coco_mask.decode(segmentation))
    return (_path(mask_rings(labels == number, 0.25)) for number in range(1, count + 1))


def _path(rings: Sequence[FloatArray]) -> str:
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring) + "Z" for ring in rings)
