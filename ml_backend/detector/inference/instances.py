"""Instances before their outlines are drawn: masks as crops, so that memory grows with objects and not with tiles."""

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
    """One instance on a tile; everything in tile pixels.

    Attributes:
        left: column of the crop's first pixel; ``top``: its row.
        mask: bool [h, w], the smallest crop that holds the instance; [0, 0] when nothing is set.
        label: index of the class.
        stage_scores: float32 [stages]; ``stage_boxes``: float32 [stages, 4].
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
        """How many pixels it covers."""
        return int(np.count_nonzero(self.mask))

    def largest_part(self) -> DetectedInstance:
        """The largest 4-connected part of it, which is what is outlined.

        To be taken after windows are merged: what one of them sees apart may be joined outside of it.
        """
        parts, count = ndimage.label(self.mask)
        if count < 2:
            return self
        largest: BoolArray = parts == np.bincount(parts.ravel())[1:].argmax() + 1
        crop = _crop(largest)
        return replace(self, left=self.left + crop[1].start, top=self.top + crop[0].start, mask=largest[crop].copy())

    def within(self, left: int, top: int, right: int, bottom: int) -> BoolArray:
        """The part of its mask in a rectangle of the tile: bool [bottom - top, right - left]."""
        part: BoolArray = np.zeros((bottom - top, right - left), dtype=bool)
        own = self.box
        x1, y1, x2, y2 = max(own[0], left), max(own[1], top), min(own[2], right), min(own[3], bottom)
        if x1 < x2 and y1 < y2:
            seen = self.mask[y1 - self.top : y2 - self.top, x1 - self.left : x2 - self.left]
            part[y1 - top : y2 - top, x1 - left : x2 - left] = seen
        return part

    def moved(self, left: int, top: int) -> DetectedInstance:
        """The same instance on a tile whose origin lies that far to the left and to the top."""
        if not left and not top:
            return self
        shift = np.array([left, top, left, top], dtype=np.float32)
        return replace(self, left=self.left + left, top=self.top + top, stage_boxes=self.stage_boxes + shift)

    def detection(self, classes: Sequence[str], tolerance: float) -> Detection:
        """Draw its outline, simplified by at most ``tolerance`` pixels."""
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
    """Take one tile's instances, in their order, out of mmdet's InstanceData."""
    arrays = {key: found[key].numpy() for key in found.keys()}  # noqa: SIM118  (InstanceData iterates otherwise)
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
    """The rows and columns of the smallest rectangle that holds a mask; empty when nothing is set."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
