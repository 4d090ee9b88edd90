"""Merging the instances of overlapping windows of a tile, so that each object is one instance.

Two windows share a strip of pixels, and are compared only there. Two instances of one class are the same object if,
inside the strip,

- their masks overlap with an IoU of .5 or more (an object detected twice, or crossing the strip), or
- a connected part of one overlaps likewise with a connected part of the other (an object whose parts are not connected
  within one of the windows), or
- one is a fragment at its window's edge, most of which lies in the other, and no instance there is the same by the
  rules above.

Objects that touch have no common pixels and remain two. The relation is transitive: an object may lie in many windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from typing import Any

import numpy as np
from scipy import ndimage

from ml_backend.detector.inference.instances import DetectedInstance
from ml_backend.detector.inference.suppression import Suppressor
from ml_backend.detector.inference.window_result import WindowResult
from ml_backend.detector.inference.windows import Window
from ml_backend.detector.masks import BoolArray

SAME_IOU = 0.5
CONTAINED = 0.75
LARGEST_HULL = 1 << 26  # pixels, a byte each
# pixels; masks seldom reach the very last pixel of a window
EDGE = 2


@dataclass(frozen=True, eq=False)
class Piece:
    """An instance, in the tile's pixels, as predicted in one window."""

    instance: DetectedInstance
    window: Window
    tile: Window

    @property
    def cut(self) -> bool:
        """Whether it reaches an edge of its window that is not the tile's, so that it may be incomplete."""
        return any(self.instance.within(*_corners(band)).any() for band in self._inner_edges())

    def _inner_edges(self) -> Iterable[Window]:
        own, tile = self.window, self.tile
        if own.left > tile.left:
            yield Window(own.left, own.top, own.left + EDGE, own.bottom)
        if own.right < tile.right:
            yield Window(own.right - EDGE, own.top, own.right, own.bottom)
        if own.top > tile.top:
            yield Window(own.left, own.top, own.right, own.top + EDGE)
        if own.bottom < tile.bottom:
            yield Window(own.left, own.bottom - EDGE, own.right, own.bottom)


class _Group:
    """Pieces of the same object, and their bounding rectangle."""

    def __init__(self, node: _Node) -> None:
        self.nodes = [node]
        self.hull = Window(*node.piece.instance.box)

    @property
    def pieces(self) -> list[Piece]:
        """The pieces in the order in which they were added."""
        return [node.piece for node in self.nodes]


class _Node:
    """A piece and the group it belongs to."""

    _numbers = count()

    def __init__(self, piece: Piece) -> None:
        self.piece, self.number = piece, next(self._numbers)
        self.group = _Group(self)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two pieces, and their masks [h, w] in the strip that their windows share."""

    first: _Node
    second: _Node
    masks: tuple[BoolArray, BoolArray]

    def agree(self) -> bool:
        """Whether the masks, or any two connected parts of them, overlap with an IoU of at least :data:`SAME_IOU`."""
        one, other = self.masks
        if _iou(np.count_nonzero(one & other), np.count_nonzero(one), np.count_nonzero(other)) >= SAME_IOU:
            return True
        parts, other_parts = ndimage.label(one)[0], ndimage.label(other)[0]
        areas, other_areas = np.bincount(parts.ravel()), np.bincount(other_parts.ravel())
        both = one & other
        touching, common = np.unique(np.stack([parts[both], other_parts[both]]), axis=1, return_counts=True)
        return bool((_iou(common, areas[touching[0]], other_areas[touching[1]]) >= SAME_IOU).any())

    def fragment(self) -> _Node | None:
        """Which of the two, if any, is a fragment of the other."""
        small = 0 if np.count_nonzero(self.masks[0]) <= np.count_nonzero(self.masks[1]) else 1
        node, pixels = (self.first, self.second)[small], np.count_nonzero(self.masks[small])
        within = np.count_nonzero(self.masks[0] & self.masks[1]) >= CONTAINED * pixels
        return node if within and node.piece.cut and node.piece.instance.pixels == pixels else None


class Merger:
    """Merges the instances of the same object, window by window.

    Windows are added row by row, from the top of the tile down. Instances that no later window can extend can be taken
    at any time, so that memory grows with a row of windows and not with the tile.

    If a piece is complete (it reaches none of its window's inner edges), the merged instance is that piece, the one
    with the best score if there are several. Otherwise it is the union of the pieces: the boxes of each stage are the
    bounding boxes of theirs; score, stage scores and entropies are means weighted by the pieces' pixels. Pieces whose
    union would span more than :data:`LARGEST_HULL` pixels are not merged.

    Args:
        size: (height, width) of the tile.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._tile = Window(0, 0, size[1], size[0])
        self._windows: dict[Window, list[_Node]] = {}
        self._groups: dict[_Group, None] = {}  # in the order of their first pieces

    def add(self, window: Window, instances: Iterable[DetectedInstance]) -> None:
        """Add the instances of a window, in the tile's pixels."""
        own = [_Node(Piece(instance, window, self._tile)) for instance in instances if instance.mask.size]
        self._groups |= dict.fromkeys(node.group for node in own)
        for other, theirs in self._windows.items():
            if shared := other.shared(window):
                for pair in _same(list(_pairs(theirs, own, shared))):
                    self._join(pair)
        if own:
            self._windows[window] = own

    def take_finished(self, top: int | None = None) -> list[DetectedInstance]:
        """Remove and return the instances that windows beginning at row ``top`` or below cannot extend; None: all."""
        done = [group for group in self._groups if top is None or group.hull.bottom <= top]
        for group in done:
            del self._groups[group]
        kept = {
            window: left
            for window, nodes in self._windows.items()
            if (left := [node for node in nodes if node.group in self._groups])
        }
        self._windows = kept
        return [_joined(group.pieces) for group in done]

    def open_boxes(self) -> list[tuple[int, int, int, int]]:
        """Bounding boxes (left, top, right, bottom) of the instances that are not finished."""
        return [_corners(group.hull) for group in self._groups]

    def _join(self, pair: _Pair) -> None:
        one, other = pair.first.group, pair.second.group
        hull = one.hull.around(other.hull)
        if one is other or hull.size[0] * hull.size[1] > LARGEST_HULL:
            return
        one.hull, one.nodes = hull, sorted([*one.nodes, *other.nodes], key=lambda node: node.number)
        for node in other.nodes:
            node.group = one
        del self._groups[other]


def tile_instances(
    results: Iterable[WindowResult],
    size: tuple[int, int],
    *,
    score_threshold: float,
    min_pixels: int,
    max_overlap: float,
) -> Iterator[DetectedInstance]:
    """The instances of a tile of ``size`` (height, width): merged, filtered, each its largest part, and suppressed.

    Windows must come from the top down; memory grows with a row of them. Instances are yielded by location, and by
    score only if there is a single row of windows. See :meth:`.Detector.predict` for the other arguments.
    """
    merger, suppressor = Merger(size), Suppressor(max_overlap)

    def filtered(top: int | None) -> Iterator[DetectedInstance]:
        for instance in merger.take_finished(top):
            if instance.on_data and instance.score >= score_threshold:
                largest = instance.largest_part()
                if largest.pixels >= min_pixels:
                    yield largest

    for top, row in groupby(results, key=lambda result: result.window.top):
        suppressor.add(filtered(top))
        yield from suppressor.take_finished(top, merger.open_boxes())
        for result in row:
            merger.add(result.window, result.instances)
    suppressor.add(filtered(None))
    yield from suppressor.take_finished()


def merge(found: Sequence[tuple[Window, Sequence[DetectedInstance]]], size: tuple[int, int]) -> list[DetectedInstance]:
    """The merged instances of all windows of a tile of ``size`` (height, width), best first."""
    merger = Merger(size)
    for window, instances in found:
        merger.add(window, instances)
    return sorted(merger.take_finished(), key=lambda instance: -instance.score)


def _same(pairs: Sequence[_Pair]) -> Iterator[_Pair]:
    """The pairs of pieces of the same object: see the module's docstring."""
    agreeing = [pair.agree() for pair in pairs]
    equals = {
        node for pair, agrees in zip(pairs, agreeing, strict=True) if agrees for node in (pair.first, pair.second)
    }
    for pair, agrees in zip(pairs, agreeing, strict=True):
        if agrees or ((fragment := pair.fragment()) is not None and fragment not in equals):
            yield pair


def _pairs(ones: Sequence[_Node], others: Sequence[_Node], shared: Window) -> Iterator[_Pair]:
    """The pairs of pieces of two windows with common pixels and the same class."""
    if not ones or not others:
        return
    boxes = [np.array([node.piece.instance.box for node in nodes]) for nodes in (ones, others)]
    low = np.maximum(boxes[0][:, None, :2], boxes[1][None, :, :2])
    high = np.minimum(boxes[0][:, None, 2:], boxes[1][None, :, 2:])
    for first, second in np.argwhere((low < high).all(axis=2)).tolist():
        one, other = ones[first], others[second]
        if one.piece.instance.label != other.piece.instance.label:
            continue
        masks = (one.piece.instance.within(*_corners(shared)), other.piece.instance.within(*_corners(shared)))
        if (masks[0] & masks[1]).any():
            yield _Pair(one, other, masks)


def _iou(common: Any, one: Any, other: Any) -> Any:
    return common / (one + other - common)


def _joined(group: Sequence[Piece]) -> DetectedInstance:
    if len(group) == 1:
        return group[0].instance
    members = [piece.instance for piece in group]
    lefts, tops, rights, bottoms = zip(*(member.box for member in members), strict=True)
    hull = Window(min(lefts), min(tops), max(rights), max(bottoms))
    mask: BoolArray = np.zeros(hull.size, dtype=bool)
    for member in members:
        x1, y1, x2, y2 = member.box
        part = mask[y1 - hull.top : y2 - hull.top, x1 - hull.left : x2 - hull.left]
        np.logical_or(part, member.mask, out=part)
    whole = [piece.instance for piece in group if not piece.cut]
    if whole:
        best = max(whole, key=lambda instance: instance.score)
        if 2 * best.pixels >= np.count_nonzero(
            mask
        ):  # else it is complete only by mistake: other windows show more of it
            return best if best.on_data else replace(best, on_data=any(member.on_data for member in members))
    weights = np.array([member.pixels for member in members], dtype=float)
    stage_boxes = np.stack([member.stage_boxes for member in members])
    return DetectedInstance(
        left=hull.left,
        top=hull.top,
        mask=mask,
        label=members[0].label,
        score=float(np.average([member.score for member in members], weights=weights)),
        stage_scores=np.average([m.stage_scores for m in members], axis=0, weights=weights).astype(np.float32),
        stage_boxes=np.concatenate([stage_boxes[..., :2].min(axis=0), stage_boxes[..., 2:].max(axis=0)], axis=-1),
        mask_entropy=float(np.average([member.mask_entropy for member in members], weights=weights)),
        class_entropy=float(np.average([member.class_entropy for member in members], weights=weights)),
        on_data=any(member.on_data for member in members),
    )


def _corners(window: Window) -> tuple[int, int, int, int]:
    return (window.left, window.top, window.right, window.bottom)
