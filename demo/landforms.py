"""Thaw slumps and their look-alikes: outlines and what they do to the ground."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy import ndimage
from shapely import Polygon

from demo.terrain import Grid, Mask, fractal

Line = NDArray[np.floating[Any]]

SLUMP, BARE_PATCH, GREEN_BOWL = "slump", "bare patch", "green bowl"
OVERGROWN = 0.5  # share of a split slump, from its headwall down, that only elevation shows; only colour shows the rest


@dataclass(frozen=True)
class Landform:
    """One slump or look-alike, in pixel coordinates of the scene (x east, y south).

    Attributes:
        kind: `SLUMP`, `BARE_PATCH` (bare ground without a depression) or `GREEN_BOWL` (a depression that is overgrown).
        outline: Headwall, floor and debris tongue.
        row, column: The middle of the scar.
        downslope: Unit vector (x, y).
        length: Of the scar, along the slope, pixels.
        depth: Of the headwall, metres.
        is_split: Its upper part is overgrown and its lower part level: neither colour nor elevation shows all of it.
    """

    kind: str
    outline: Polygon
    row: int
    column: int
    downslope: tuple[float, float]
    length: float
    depth: float
    is_split: bool = False


def slump_outline(
    center: tuple[float, float],
    downslope: tuple[float, float],
    length: float,
    rng: np.random.Generator,
) -> Polygon:
    """A scalloped headwall arc upslope, flanks that narrow, and a debris tongue downslope.

    Args:
        center: Middle of the scar, (x, y) pixels.
        downslope: Unit vector.
        length: Of the scar along the slope, pixels.
        rng: Source of randomness.
    """
    width = length * rng.uniform(0.75, 1.25)
    tongue = length * rng.uniform(0.15, 0.7)
    tongue_width = width * rng.uniform(0.22, 0.4)
    bend = rng.uniform(-0.25, 0.25) * tongue
    along = np.linspace(0, 1, 200)
    half = _half_width(along, width, length, tongue, tongue_width)
    scallops = _wave(along, rng, counts=(5, 9, 15), size=0.07)
    position = along * (length + tongue) - length / 2
    drift = bend * np.clip((position - length / 2) / max(tongue, 1), 0, 1) ** 2
    left = half * (1 + scallops) + drift
    right = -half * (1 + _wave(along, rng, counts=(4, 8, 15), size=0.07)) + drift
    u = np.concatenate([position, position[::-1]])
    v = np.concatenate([left, right[::-1]])
    dx, dy = downslope
    shape = Polygon(np.column_stack([center[0] + u * dx - v * dy, center[1] + u * dy + v * dx])).buffer(0)
    # Opening and closing by a pixel rounds what no pixel could show.
    shape = shape.buffer(-0.8).buffer(1.6).buffer(-0.8)
    return max(getattr(shape, "geoms", [shape]), key=lambda part: part.area).simplify(0.25)


def _half_width(along: Line, width: float, length: float, tongue: float, tongue_width: float) -> Line:
    """Half width from the headwall (0) to the tongue's end (1)."""
    total = length + tongue
    scar = np.clip(along * total / length, 0, 1)
    rim = width / 2 * np.clip(scar / 0.35, 0, 1) ** 0.45 * (1 - 0.75 * np.clip((scar - 0.35) / 0.65, 0, 1) ** 2.2)
    end = np.clip((total * (1 - along)) / (0.6 * tongue_width), 0, 1)
    return np.asarray(np.maximum(rim, tongue_width / 2 * (scar > 0.3)) * np.sqrt(1 - (1 - end) ** 2))


def _wave(along: Line, rng: np.random.Generator, *, counts: tuple[int, ...], size: float) -> Line:
    return np.asarray(
        size * np.sum([np.sin(2 * np.pi * (count * along / 2 + rng.random())) for count in counts], axis=0)
    )


def blob_outline(center: tuple[float, float], length: float, rng: np.random.Generator) -> Polygon:
    """An irregular patch about as large as a slump."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    radius = length / 2 * rng.uniform(0.8, 1.1)
    waves = sum(rng.uniform(0, 0.3 / n) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 5, 7))
    ring = radius * (1 + waves)
    squeeze, turn = rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
    x, y = ring * np.cos(angle), ring * np.sin(angle) * squeeze
    return Polygon(
        np.column_stack(
            [center[0] + x * np.cos(turn) - y * np.sin(turn), center[1] + x * np.sin(turn) + y * np.cos(turn)]
        )
    ).buffer(0)


@dataclass(frozen=True)
class LandformWindow:
    """The part of a scene that a landform touches, and the landform's own coordinates in it.

    Attributes:
        rows, columns: Slices of the scene.
        inside: bool [h, w].
        edge: Pixels from the outline, inside; float32 [h, w].
        along: 0 at the headwall, 1 at the lower end; float32 [h, w].
        across: Pixels from the axis; float32 [h, w].
    """

    rows: slice
    columns: slice
    inside: Mask
    edge: Grid
    along: Grid
    across: Grid

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.inside.shape
        return rows, columns


def window_of(form: Landform, shape: tuple[int, int]) -> LandformWindow:
    """Coordinates of every pixel around a landform."""
    west, north, east, south = form.outline.bounds
    top, left = max(int(north) - 8, 0), max(int(west) - 8, 0)
    bottom, right = min(int(south) + 9, shape[0]), min(int(east) + 9, shape[1])
    inside = rasterize(
        [form.outline], (bottom - top, right - left), transform=(1, 0, left, 0, 1, top), dtype="uint8"
    ).astype(bool)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    dx, dy = form.downslope
    u = (x - form.column) * dx + (y - form.row) * dy
    v = -(x - form.column) * dy + (y - form.row) * dx
    ends = u[inside] if inside.any() else np.array([0.0, 1.0])
    along = (u - ends.min()) / max(float(np.ptp(ends)), 1.0)
    edge = np.asarray(ndimage.distance_transform_edt(inside), dtype=np.float32)
    return LandformWindow(
        slice(top, bottom), slice(left, right), inside, edge, along.astype(np.float32), v.astype(np.float32)
    )


def sink(elevation: Grid, form: Landform, window: LandformWindow) -> None:
    """Cut the scar into the ground: steep at the headwall, running out downslope, debris piled at the end."""
    part = elevation[window.rows, window.columns]
    wall = np.clip(window.edge / 3.0, 0, 1) ** 0.8
    run_out = np.clip(1 - 1.25 * window.along, 0, 1) ** 0.7
    if form.is_split:
        run_out = np.clip((OVERGROWN + 0.05 - window.along) / 0.1, 0, 1)
    part -= np.where(window.inside, form.depth * wall * run_out, 0).astype(np.float32)
    if form.kind == SLUMP and not form.is_split:
        debris = np.clip((window.along - 0.8) / 0.2, 0, 1) * np.clip(window.edge / 4, 0, 1)
        part += np.where(window.inside, 1.2 * debris, 0).astype(np.float32)


def flow_lines(window: LandformWindow, rng: np.random.Generator) -> Grid:
    """Mud streaks along the flow, -1 to 1 or so; float32 [h, w]."""
    noise = fractal((64, 512), rng, slope=1.6, longest=64)
    rows = np.clip(window.along * 14, 0, 63)
    columns = np.clip(window.across * 2.0 + 256 + 6 * np.sin(window.along * 7), 0, 511)
    return np.asarray(ndimage.map_coordinates(noise, [rows, columns], order=1), dtype=np.float32)
