"""Simulated corrections: outlines vary, small objects are missed, false alarms are deleted.

Everything here is geometry in tile pixels; annotators.py carries it to Label Studio.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely import Polygon

Ring = NDArray[np.float64]

SMALLEST_DRAWN = 12.0  # square pixels; nobody outlines a smaller sliver at a tile's edge
STROKE = 1.5  # pixels between clicks before simplification
SMOOTHNESS = 5.0  # pixels along the outline over which a hand's error stays the same
SIMPLIFY = 0.4  # pixels
GOOD_ENOUGH = 0.8  # IoU at which a person leaves a proposed outline alone
RELATED = 0.2  # IoU above which a proposal is corrected rather than deleted and drawn again


@dataclass(frozen=True)
class Habits:
    """What makes one annotator different from another.

    Attributes:
        wobble: Standard deviation of the outline, pixels.
        generosity: Pixels by which outlines are drawn too wide (negative: too tight).
        miss_small, miss_large: Chance to overlook the smallest and a large object.
        accept_false: Chance to leave a false alarm in place.
        nudge: Chance to redraw even a good outline.
    """

    wobble: float = 1.0
    generosity: float = 0.0
    miss_small: float = 0.25
    miss_large: float = 0.02
    accept_false: float = 0.03
    nudge: float = 0.15


@dataclass(frozen=True)
class Outline:
    """One shape on a tile.

    Attributes:
        region: Its id in Label Studio; empty for what is new.
        class_name: Landform class.
        polygon: In tile pixels.
        is_untouched: Left as it was shown.
    """

    region: str
    class_name: str
    polygon: Polygon
    is_untouched: bool = False


@dataclass(frozen=True)
class Correction:
    """How a person corrected a tile: the outlines that remain, and counts of what was done."""

    outlines: tuple[Outline, ...]
    kept: int = 0
    mended: int = 0
    added: int = 0
    struck_out: int = 0
    missed: int = 0

    @property
    def effort(self) -> int:
        """Number of things that took time."""
        return self.mended + self.added + self.struck_out


def correct(
    shown: Sequence[Outline], truth: Sequence[Outline], habits: Habits, tile_size: int, rng: np.random.Generator
) -> Correction:
    """Move what is shown towards the truth as a person would.

    Args:
        shown: The pre-annotation.
        truth: What is there, clipped to the tile.
        habits: Of the person.
        tile_size: Pixels.
        rng: Source of randomness.
    """
    partner = _pair(shown, truth)
    outlines: list[Outline] = []
    counts = {"kept": 0, "mended": 0, "added": 0, "struck_out": 0, "missed": 0}
    for index, real in enumerate(truth):
        proposal = partner.get(index)
        if (
            proposal is not None
            and _iou(proposal.polygon, real.polygon) >= GOOD_ENOUGH
            and rng.random() >= habits.nudge
        ):
            outlines.append(replace(proposal, is_untouched=True))
            counts["kept"] += 1
            continue
        if proposal is None and rng.random() < miss_chance(real.polygon.area, habits):
            counts["missed"] += 1
            continue
        drawn = draw(real.polygon, habits, tile_size, rng)
        outlines += [Outline(proposal.region if proposal else "", real.class_name, drawn)] if drawn else []
        counts["mended" if proposal else "added"] += 1
    used = {proposal.region for proposal in partner.values()}
    for proposal in shown:
        if proposal.region in used:
            continue
        if rng.random() < habits.accept_false:
            outlines.append(replace(proposal, is_untouched=True))
            counts["kept"] += 1
        else:
            counts["struck_out"] += 1
    return Correction(tuple(outlines), **counts)


def draw(polygon: Polygon, habits: Habits, tile_size: int, rng: np.random.Generator) -> Polygon | None:
    """Outline a shape by hand: smooth wobble on every ring, clipped to the tile; None when nothing is left."""
    exterior = _wobble(polygon.exterior, habits.generosity, habits.wobble, rng)
    holes = [
        _wobble(ring, -habits.generosity, habits.wobble, rng) for ring in polygon.interiors if Polygon(ring).area > 8
    ]
    drawn = Polygon(exterior).buffer(0)
    for hole in holes:
        drawn = drawn.difference(Polygon(hole).buffer(0))
    return clipped(drawn.simplify(SIMPLIFY), tile_size)


def clipped(shape: shapely.Geometry, tile_size: int) -> Polygon | None:
    """The largest part of a shape that lies in the tile, if it is large enough to be drawn at all."""
    inside = shapely.make_valid(shape.intersection(shapely.box(0, 0, tile_size, tile_size)))
    parts = [part for part in shapely.get_parts(shapely.get_parts(inside)) if isinstance(part, Polygon)]
    largest = max(parts, key=lambda part: part.area, default=None)
    return largest if largest is not None and largest.area >= SMALLEST_DRAWN else None


def miss_chance(area: float, habits: Habits) -> float:
    """Chance to overlook an object of so many square pixels."""
    return habits.miss_large + (habits.miss_small - habits.miss_large) * float(np.exp(-area / 150))


def _wobble(ring: shapely.LinearRing, outwards: float, spread: float, rng: np.random.Generator) -> Ring:
    """The ring, moved along its normals by a smooth random distance."""
    count = max(int(ring.length / STROKE), 8)
    steps = np.arange(count) * ring.length / count
    points = shapely.get_coordinates(shapely.line_interpolate_point(ring, steps))
    ahead = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    length = np.maximum(np.hypot(ahead[:, 0], ahead[:, 1]), 1e-9)[:, None]
    normal = np.column_stack([ahead[:, 1], -ahead[:, 0]]) / length * (1 if ring.is_ccw else -1)
    noise = ndimage.gaussian_filter1d(rng.standard_normal(count), SMOOTHNESS / STROKE, mode="wrap")
    noise *= spread / max(float(noise.std()), 1e-9)
    return np.asarray(points + normal * (noise + outwards)[:, None])


def _pair(shown: Sequence[Outline], truth: Sequence[Outline]) -> dict[int, Outline]:
    """The proposal for each true object, best pairs first, each proposal used once."""
    scores = [
        (_iou(proposal.polygon, real.polygon), index, number)
        for index, real in enumerate(truth)
        for number, proposal in enumerate(shown)
    ]
    partner: dict[int, Outline] = {}
    taken: set[int] = set()
    for score, index, number in sorted(scores, reverse=True):
        if score >= RELATED and index not in partner and number not in taken:
            partner[index] = shown[number]
            taken.add(number)
    return partner


def _iou(first: Polygon, second: Polygon) -> float:
    union = first.union(second).area
    return float(first.intersection(second).area / union) if union else 0.0
