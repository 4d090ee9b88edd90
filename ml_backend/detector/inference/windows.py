"""Cutting a tile of any size into overlapping windows that fit into memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ml_backend.detector.checkpoint import DEFAULT_SIDE
from ml_backend.detector.chips import ChipInput
from ml_backend.detector.errors import ConfigError
from ml_backend.detector.masks import BoolArray

SMALLEST = 32
DEFAULT_WINDOW = DEFAULT_SIDE
# pixels; windows are compared in what they share, see merging
SMALLEST_OVERLAP = 4


@dataclass(frozen=True)
class Window:
    """A rectangle of a tile, in pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return (self.bottom - self.top, self.right - self.left)

    def shared(self, other: Window) -> Window | None:
        """The intersection; None if it is empty."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Window(left, top, right, bottom) if left < right and top < bottom else None

    def around(self, other: Window) -> Window:
        """The smallest rectangle that holds both."""
        left, top = min(self.left, other.left), min(self.top, other.top)
        return Window(left, top, max(self.right, other.right), max(self.bottom, other.bottom))

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def of(self, chip: ChipInput) -> ChipInput:
        """The part of a chip in the window, as views."""
        rows, columns = self.slices
        return ChipInput(
            {name: array[:, rows, columns] for name, array in chip.arrays.items()},
            {name: valid[rows, columns] for name, valid in chip.valid.items()},
        )


@dataclass(frozen=True)
class WindowChip:
    """A window of a tile, its chip, and its number of pixels with data in any modality."""

    window: Window
    chip: ChipInput
    valid: int


class Pixels(Protocol):
    """The pixels of a tile, which can be read window by window."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""

    def read(self, window: Window) -> ChipInput:
        """The chip of a window."""


@dataclass(frozen=True)
class InMemory:
    """The pixels of a tile in memory."""

    chip: ChipInput
    size: tuple[int, int]

    def read(self, window: Window) -> ChipInput:
        """The chip of a window, as views."""
        return window.of(self.chip)


def plan_windows(size: tuple[int, int], window: tuple[int, int], overlap: int) -> list[Window]:
    """Cover a tile with windows, spread evenly, that share at least ``overlap`` pixels with their neighbours.

    Args:
        size: (height, width) of the tile.
        window: (height, width) of the windows; a tile is not cut along sides that are not longer.
        overlap: smallest number of pixels that neighbours share.

    Raises:
        ConfigError: the window is too small, or the overlap is too small or more than half the window.
    """
    if min(window) < SMALLEST:
        raise ConfigError(f"A window of {window[1]} x {window[0]} pixels makes no sense: give {SMALLEST} or more.")
    if not SMALLEST_OVERLAP <= overlap <= min(window) // 2:
        raise ConfigError(
            f"An overlap of {overlap} pixels makes no sense for windows of {window[1]} x {window[0]}: "
            f"give {SMALLEST_OVERLAP} to {min(window) // 2}."
        )
    rows, columns = (_starts(length, own, overlap) for length, own in zip(size, window, strict=True))
    return [
        Window(left, top, min(left + window[1], size[1]), min(top + window[0], size[0]))
        for top in rows
        for left in columns
    ]


def _starts(length: int, window: int, overlap: int) -> list[int]:
    if length <= window:
        return [0]
    count = math.ceil((length - overlap) / (window - overlap))
    return [int(start) for start in np.linspace(0, length - window, count).round()]


def covered(chip: ChipInput, modalities: tuple[str, ...]) -> BoolArray:
    """Which pixels [H, W] have data in any of the modalities."""
    planes = [
        np.logical_and(np.isfinite(array).all(axis=0), chip.valid.get(name, True))
        for name, array in chip.arrays.items()
        if name in modalities
    ]
    either: BoolArray = np.logical_or.reduce(planes)
    return either


def window_around(box: tuple[float, float, float, float], size: tuple[int, int], window: tuple[int, int]) -> Window:
    """The window centred on a box (xyxy), moved into the tile of ``size``; as large as the box if that is larger."""
    top, height = _span_around(box[1], box[3], size[0], window[0])
    left, width = _span_around(box[0], box[2], size[1], window[1])
    return Window(left, top, left + width, top + height)


def _span_around(low: float, high: float, length: int, window: int) -> tuple[int, int]:
    side = min(length, max(window, math.ceil(high) - math.floor(low)))
    start = min(max(round((low + high - side) / 2), math.ceil(high) - side), math.floor(low))
    return min(max(start, 0), length - side), side
