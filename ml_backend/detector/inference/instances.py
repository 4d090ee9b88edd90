"""Detected instances as cropped masks, before they are outlined; memory depends on the objects, not on the tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from ml_backend.detector.inference.results import Detection
from ml_backend.detector.masks import BoolArray, FloatArray, mask_rings


@dataclass(frozen=True, eq=False)
class DetectedInstance:
    """A detected instance as a mask, in tile pixels; :meth:`detection` outlines it.

    Attributes:
        left: column of the crop's first pixel.
        top: row of the crop's first pixel.
        mask: bool [h, w], cropped to the instance; [0, 0] if it is empty.
        label: index of the class.
        score: 0..1.
        stage_scores: float32 [stages], each stage's score of the class.
        stage_boxes: float32 [stages, 4], each stage's box, xyxy.
        mask_entropy: see :class:`.Detection`.
        class_entropy: see :class:`.Detection`.
        on_data: whether any modality has data on one of its pixels.
    """

    left: int
    top: int
    mask: BoolArray
    label: int
    score: float
    stage_scores: FloatArray
    stage_boxes: FloatArray
    mask_entropy: float
    class_entropy: float
    on_data: bool = True

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Its crop: left, top, right, bottom."""
        return (self.left, self.top, self.left + self.mask.shape[1], self.top + self.mask.shape[0])

    @property
    def pixels(self) -> int:
        """Number of pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def largest_part(self) -> DetectedInstance:
        """Its largest 4-connected part, which is outlined.

        Use it after windows are merged: parts may be connected outside a window.
        """
        parts, count = ndimage.label(self.mask)
        if count < 2:
            return self
        largest: BoolArray = parts == np.bincount(parts.ravel())[1:].argmax() + 1
        crop = _crop(largest)
        return replace(self, left=self.left + crop[1].start, top=self.top + crop[0].start, mask=largest[crop].copy())

    def within(self, left: int, top: int, right: int, bottom: int) -> BoolArray:
        """Its mask in a rectangle of the tile, bool [bottom - top, right - left]."""
        part: BoolArray = np.zeros((bottom - top, right - left), dtype=bool)
        own = self.box
        x1, y1, x2, y2 = max(own[0], left), max(own[1], top), min(own[2], right), min(own[3], bottom)
        if x1 < x2 and y1 < y2:
            common = self.mask[y1 - self.top : y2 - self.top, x1 - self.left : x2 - self.left]
            part[y1 - top : y2 - top, x1 - left : x2 - left] = common
        return part

    def moved(self, left: int, top: int) -> DetectedInstance:
        """The instance shifted by ``left`` and ``top`` pixels, such as from a window to its tile."""
        if not left and not top:
            return self
        shift = np.array([left, top, left, top], dtype=np.float32)
        return replace(self, left=self.left + left, top=self.top + top, stage_boxes=self.stage_boxes + shift)

    def detection(self, classes: Sequence[str], tolerance: float) -> Detection:
        """Outline it; simplified by at most ``tolerance`` pixels."""
        rings = mask_rings(self.mask, tolerance) if self.mask.size else []
        origin = np.array([self.left, self.top], dtype=np.float32)
        return Detection(
            rings=[ring + origin for ring in rings],
            class_name=classes[self.label],
            score=self.score,
            stage_scores=tuple(self.stage_scores.tolist()),
            stage_boxes=self.stage_boxes,
            mask_entropy=self.mask_entropy,
            class_entropy=self.class_entropy,
        )


def instances_of(found: Any) -> list[DetectedInstance]:
    """The instances of one tile from mmdet's InstanceData, in the same order."""
    arrays = {key: found[key].numpy() for key in found.keys()}  # noqa: SIM118  (InstanceData iterates over instances)
    taken = []
    for i in range(len(arrays["scores"])):
        mask = arrays["masks"][i].astype(bool)
        crop = _crop(mask)
        taken.append(
            DetectedInstance(
                left=crop[1].start,
                top=crop[0].start,
                mask=mask[crop].copy(),
                label=int(arrays["labels"][i]),
                score=float(arrays["scores"][i]),
                stage_scores=arrays["stage_scores"][i],
                stage_boxes=arrays["stage_boxes"][i].astype(np.float32),
                mask_entropy=float(arrays["mask_entropy"][i]),
                class_entropy=float(arrays["class_entropy"][i]),
            )
        )
    return taken


def _crop(mask: BoolArray) -> tuple[slice, slice]:
    """Rows and columns of the bounding rectangle of a mask; empty slices if the mask is empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
