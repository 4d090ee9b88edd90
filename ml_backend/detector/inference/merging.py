"""One slump, one instance: joining what overlapping windows of a tile say.

Two windows see the same pixels in the strip that they share, so only there can they agree or disagree. Two instances
of one class are the same slump when, inside the strip,

- their masks overlap with an IoU of .5 or more (a slump seen twice, or one that goes across), or
- a connected part of one overlaps so with a connected part of the other (a slump whose arms one window sees apart), or
- one is nothing but a scrap at its window's edge, most of it lies in the other, and it has no equal there.

Slumps that touch have no common pixels and stay two. Sameness is passed on: a slump may lie in many windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ml_backend.detector.inference.instances import Instance
from ml_backend.detector.inference.windows import Window
from ml_backend.detector.masks import BoolArray

SAME_IOU = 0.5
CONTAINED = 0.75
# Masks seldom reach the very last pixel of a window.
EDGE = 2


@dataclass(frozen=True, eq=False)
class Piece:
    """An instance (in the tile's pixels) as one window sees it."""

    instance: Instance
    window: Window
    tile: Window

    @property
    def cut(self) -> bool:
        """Whether it reaches an edge of its window that is not the tile's: there may be more of it."""
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


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two pieces, and their masks [h, w] in the strip that their windows share."""

    first: int
    second: int
    masks: tuple[BoolArray, BoolArray]

    def agree(self) -> bool:
        """Whether the masks, or any two connected parts of them, overlap with the IoU that makes them the same."""
        one, other = self.masks
        if _iou(np.count_nonzero(one & other), np.count_nonzero(one), np.count_nonzero(other)) >= SAME_IOU:
            return True
        parts, other_parts = ndimage.label(one)[0], ndimage.label(other)[0]
        areas, other_areas = np.bincount(parts.ravel()), np.bincount(other_parts.ravel())
        both = one & other
        touching, common = np.unique(np.stack([parts[both], other_parts[both]]), axis=1, return_counts=True)
        return bool((_iou(common, areas[touching[0]], other_areas[touching[1]]) >= SAME_IOU).any())

    def scrap(self, pieces: Sequence[Piece]) -> int | None:
        """Which of both, if any, is a scrap of the other."""
        small = 0 if np.count_nonzero(self.masks[0]) <= np.count_nonzero(self.masks[1]) else 1
        index, pixels = (self.first, self.second)[small], np.count_nonzero(self.masks[small])
        within = np.count_nonzero(self.masks[0] & self.masks[1]) >= CONTAINED * pixels
        return index if within and pieces[index].cut and pieces[index].instance.pixels == pixels else None


def merge(found: Sequence[tuple[Window, Sequence[Instance]]], size: tuple[int, int]) -> list[Instance]:
    """Make one instance of all that show the same slump.

    What a window sees whole (it reaches none of the window's inner edges) is taken as that window says, by the best
    score where several do. Otherwise the instance is the union of its pieces: boxes of each stage are the hull of
    theirs; score, stage scores and entropies are their means, weighted by the pieces' pixels.

    Args:
        found: per window its instances, in the tile's pixels.
        size: (height, width) of the tile.

    Returns:
        The instances, best first.
    """
    tile = Window(0, 0, size[1], size[0])
    pieces = [
        Piece(instance, window, tile) for window, instances in found for instance in instances if instance.mask.size
    ]
    if not pieces:
        return []
    same = _same(pieces)
    links = coo_array((np.ones(len(same)), tuple(np.array(same, dtype=int).reshape(-1, 2).T)), (len(pieces),) * 2)
    _, group_of = connected_components(links, directed=False)
    groups: dict[int, list[Piece]] = {}
    for piece, group in zip(pieces, group_of, strict=True):
        groups.setdefault(int(group), []).append(piece)
    return sorted((_joined(group) for group in groups.values()), key=lambda instance: -instance.score)


def _same(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """The pairs of pieces that show the same slump: see the module's docstring."""
    pairs = list(_pairs(pieces))
    agreeing = [pair.agree() for pair in pairs]
    same = [(pair.first, pair.second) for pair, agrees in zip(pairs, agreeing, strict=True) if agrees]
    equals = {(one, pieces[other].window) for pair in same for one, other in (pair, pair[::-1])}
    for pair, agrees in zip(pairs, agreeing, strict=True):
        scrap = None if agrees else pair.scrap(pieces)
        if scrap is not None:
            other = pair.second if scrap == pair.first else pair.first
            if (scrap, pieces[other].window) not in equals:
                same.append((scrap, other))
    return same


def _pairs(pieces: Sequence[Piece]) -> Iterable[_Pair]:
    """The pieces of two windows that have common pixels and one class."""
    boxes = shapely.box(*np.array([piece.instance.box for piece in pieces], dtype=float).T)
    for first, second in shapely.STRtree(boxes).query(boxes, predicate="intersects").T.tolist():
        one, other = pieces[first], pieces[second]
        if first >= second or one.window == other.window or one.instance.label != other.instance.label:
            continue
        shared = one.window.shared(other.window)
        if shared is None:
            continue
        masks = (one.instance.within(*_corners(shared)), other.instance.within(*_corners(shared)))
        if (masks[0] & masks[1]).any():
            yield _Pair(first, second, masks)


def _iou(common: Any, one: Any, other: Any) -> Any:
    return common / (one + other - common)


def _joined(group: Sequence[Piece]) -> Instance:
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
        if 2 * best.pixels >= np.count_nonzero(mask):  # else it is whole only by mistake: others saw more of it
            return best
    weights = np.array([member.pixels for member in members], dtype=float)
    stage_boxes = np.stack([member.stage_boxes for member in members])
    return Instance(
        left=hull.left,
        top=hull.top,
        mask=mask,
        label=members[0].label,
        score=float(np.average([member.score for member in members], weights=weights)),
        stage_scores=np.average([m.stage_scores for m in members], axis=0, weights=weights).astype(np.float32),
        stage_boxes=np.concatenate([stage_boxes[..., :2].min(axis=0), stage_boxes[..., 2:].max(axis=0)], axis=-1),
        mask_entropy=float(np.average([member.mask_entropy for member in members], weights=weights)),
        class_entropy=float(np.average([member.class_entropy for member in members], weights=weights)),
    )


def _corners(window: Window) -> tuple[int, int, int, int]:
    return (window.left, window.top, window.right, window.bottom)
