"""Which part of a scene's file lies under a tile, antimeridian and poles included."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.windows import Window

from thawloop.catalog.turns import Turn, turn_of

# Pixels read around what is asked for, in target pixels: cubic needs two.
_KERNEL = 4
_SAMPLES = 9
# By how much the columns of a turn around the globe may miss a whole number.
_SEAM_PX = 0.01


@dataclass(frozen=True)
class Target:
    """The pixels to fill: `width` x `height` of `transform` (pixel → CRS of EPSG code `srid`)."""

    srid: int
    transform: Affine
    width: int
    height: int

    def expanded(self, halo: int) -> "Target":
        """The same with `halo` more pixels on every side."""
        moved = self.transform @ Affine.translation(-halo, -halo)
        return Target(self.srid, moved, self.width + 2 * halo, self.height + 2 * halo)


@dataclass(frozen=True)
class Placement:
    """How a scene's pixels lie to a grid's: computed once for each pair.

    `aligned` scenes have the grid's CRS, pixel size and pixel corners, so that pixels can be copied instead of
    resampled. `turn` says how x repeats in the scene's CRS.
    """

    scene_crs: CRS
    grid_crs: CRS
    to_scene: Transformer | None
    aligned: bool
    turn: Turn | None


@dataclass(frozen=True)
class View:
    """A target seen from a scene.

    columns, rows: the scene's pixel coordinates of regular points on the target, x counted on from its middle.
    ratio: scene pixels per target pixel.
    turns: what GDAL's transformation of the target's points differs by from that x, in units of the CRS; where the
        target lies across the place at which the CRS's x wraps around, there are several.
    pole: on which side of the scene a pole lies that the target holds: "top", "bottom" or none.
    """

    columns: NDArray[np.float64]
    rows: NDArray[np.float64]
    ratio: float
    turns: tuple[float, ...]
    pole: str


@dataclass(frozen=True)
class Piece:
    """A part of a file under a target.

    windows: side by side; more than one where the file's last column is the first one's neighbour.
    shift: what to add to x of the first window's transform so that it is counted as the view's.
    clipped: whether the file's edge cuts it.
    """

    windows: tuple[Window, ...]
    shift: float
    clipped: bool


def place(dataset: DatasetReader, srid: int, pixel_size: float) -> Placement:
    """Work out a `Placement` of a dataset to a grid."""
    grid_crs = CRS.from_epsg(srid)
    same = dataset.crs == grid_crs
    a, b, c, d, e, f = dataset.transform[:6]
    aligned = (
        same
        and b == d == 0
        and np.isclose([a, -e], pixel_size, rtol=1e-9, atol=0).all()
        and all(abs(v / pixel_size - round(v / pixel_size)) < 1e-4 for v in (c, f))
    )
    scene_crs = ProjCRS.from_wkt(dataset.crs.to_wkt())
    to_scene = None if same else Transformer.from_crs(srid, scene_crs, always_xy=True)
    return Placement(dataset.crs, grid_crs, to_scene, bool(aligned), turn_of(scene_crs))


def look(dataset: DatasetReader, placement: Placement, target: Target) -> View | None:
    """The target seen from the scene; None where they have no place in common."""
    steps_x, steps_y = (np.linspace(0, size, _SAMPLES) for size in (target.width, target.height))
    columns, rows = np.meshgrid(steps_x, steps_y)
    x: NDArray[np.float64]  # affine's stubs know no arrays
    x, y = target.transform @ (columns, rows)  # type: ignore[operator,assignment]
    if placement.to_scene is not None:
        x, y = placement.to_scene.transform(x, y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    turns: tuple[float, ...] = (0.0,)
    around_pole = False
    if placement.turn is not None:
        x, turns = _continuous(x, placement.turn)
        around_pole = _winds(x, placement.turn)
    columns, rows = ~dataset.transform @ (x, y)
    down = np.hypot(np.diff(columns, axis=0), np.diff(rows, axis=0)).max() * (_SAMPLES - 1) / target.height
    across = np.hypot(np.diff(columns, axis=1), np.diff(rows, axis=1)).max() * (_SAMPLES - 1) / target.width
    if around_pole:  # there the columns of the scene converge, and only its rows tell how large its pixels are
        across = down = np.ptp(rows) / min(target.width, target.height)
    pole = "" if not around_pole else "top" if (dataset.transform.e < 0) == (np.mean(y) > 0) else "bottom"
    return View(columns, rows, float(max(across, down)), turns, pole)


def _continuous(x: NDArray[np.float64], turn: Turn) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """x counted on from the middle point, and what PROJ's x differs by from it, for all points of the target."""
    unwrapped = turn.near(x, float(x[_SAMPLES // 2, _SAMPLES // 2]))
    turns = {float(t) for t in np.unique(np.round((x - unwrapped) / turn.length))}
    # Between the points a corner may reach over the edge, where they do not.
    reach = np.ptp(unwrapped) + turn.length / 180
    if np.abs(x - turn.middle).max() > turn.length / 2 - reach:
        turns |= {t + step for t in turns for step in (-1.0, 1.0)}
    return unwrapped, tuple(t * turn.length for t in sorted(turns, key=abs))


def _winds(x: NDArray[np.float64], turn: Turn) -> bool:
    """Whether the target's rim runs once around the globe: it holds a pole."""
    rim = np.concatenate([x[0], x[1:, -1], x[-1, -2::-1], x[-2::-1, 0]])
    steps = np.diff(rim)
    return bool(abs((steps - turn.length * np.round(steps / turn.length)).sum()) > turn.length / 2)


def pieces(dataset: DatasetReader, placement: Placement, view: View, *, joined: bool) -> Iterator[Piece]:
    """The parts of the file under a target, the one nearest in x first.

    A raster that goes once around the globe is read across its seam, if `joined`.
    """
    if placement.turn is None:
        yield from _piece(dataset, _bounds(dataset, view), 0.0)
        return
    length = placement.turn.length
    middle, _ = dataset.transform @ (dataset.width / 2, dataset.height / 2)
    seen, _ = dataset.transform @ (float(view.columns.mean()), float(view.rows.mean()))
    nearest = round((seen - middle) / length)
    # The scene's pixels of one turn, as (columns, rows): rotated scenes turn along both.
    inverse = ~dataset.transform
    around = (inverse.a * length, inverse.d * length)
    seam = _seam(dataset, around) if joined else 0
    for turns in (nearest,) if seam else (nearest, nearest - 1, nearest + 1):
        bounds = _bounds(dataset, view, (turns * around[0], turns * around[1]), abs(around[0]))
        yield from _piece(dataset, bounds, turns * length, seam)


Bounds = tuple[int, int, int, int]


def _bounds(dataset: DatasetReader, view: View, shift: tuple[float, float] = (0.0, 0.0), around: float = 0.0) -> Bounds:
    """Left, top, right and bottom of the pixels to read; around a pole all longitudes up to it."""
    margin = _KERNEL * max(1.0, view.ratio)
    columns, rows = view.columns - shift[0], view.rows - shift[1]
    left, right, top, bottom = columns.min(), columns.max(), rows.min(), rows.max()
    if view.pole:
        left, right = columns.mean() - around / 2, columns.mean() + around / 2
        top, bottom = (0.0, bottom) if view.pole == "top" else (top, float(dataset.height))
    return (
        int(np.floor(left - margin)),
        int(np.floor(top - margin)),
        int(np.ceil(right + margin)),
        int(np.ceil(bottom + margin)),
    )


def _seam(dataset: DatasetReader, around: tuple[float, float]) -> int:
    """Columns in a turn, if the file holds all of them and the last is the first one's neighbour; else 0."""
    columns = round(around[0])
    whole = abs(around[0] - columns) < _SEAM_PX and abs(around[1]) < _SEAM_PX
    return columns if whole and 0 < columns <= dataset.width else 0


def _piece(dataset: DatasetReader, bounds: Bounds, shift: float, seam: int = 0) -> Iterator[Piece]:
    """The pixels within bounds, if the file has any; those beyond its `seam` are at its other end."""
    left, top, right, bottom = bounds
    y, height = max(top, 0), min(bottom, dataset.height) - max(top, 0)
    if height <= 0:
        return
    clipped = top < 0 or bottom > dataset.height
    if not seam:
        x, width = max(left, 0), min(right, dataset.width) - max(left, 0)
        if width > 0:
            clipped |= left < 0 or right > dataset.width
            yield Piece((Window(x, y, width, height),), shift, clipped)
        return
    windows = []
    beyond = dataset.transform.a * (left - left % seam)
    while left < right:
        width = min(right - left, seam - left % seam)
        windows.append(Window(left % seam, y, width, height))
        left += width
    yield Piece(tuple(windows), shift + beyond, clipped)
