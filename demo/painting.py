"""What a scene looks like from above: colours of the ground and of its landforms, light, season and sensor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from demo.landforms import (
    BARE_PATCH,
    GREEN_BOWL,
    OVERGROWN,
    SLUMP,
    Landform,
    LandformWindow,
    flow_lines,
    sink,
    window_of,
)
from demo.terrain import Grid, Ground, Mask, fractal, hillshade

# Reflectance of blue, green, red, near infrared.
_SPARSE = np.array([0.062, 0.082, 0.100, 0.185])
_LUSH = np.array([0.030, 0.062, 0.045, 0.340])
_MUD = np.array([0.092, 0.117, 0.146, 0.185])
_WET_MUD = np.array([0.060, 0.074, 0.090, 0.108])
_HEADWALL = np.array([0.040, 0.045, 0.050, 0.056])
_GRAVEL = np.array([0.135, 0.160, 0.185, 0.225])
_WATER = np.array([0.050, 0.045, 0.028, 0.012])
_SNOW = np.array([0.720, 0.740, 0.750, 0.680])


@dataclass(frozen=True)
class Conditions:
    """What differs between pictures of the same ground.

    Attributes:
        sun_azimuth, sun_altitude: Degrees.
        season: Added to the vegetation (0 sparse to 1 lush): below 0 is late in the year.
        brightness: Factor on all reflectances: haze, calibration.
    """

    sun_azimuth: float = 165.0
    sun_altitude: float = 32.0
    season: float = 0.0
    brightness: float = 1.0


def paint(
    ground: Ground, forms: list[Landform], pixel_size: float, rng: np.random.Generator, conditions: Conditions
) -> tuple[Grid, Grid]:
    """Elevation float32 [H, W] in metres, and reflectance of blue, green, red and near infrared float32 [4, H, W]."""
    rows, columns = ground.water.shape
    shape = rows, columns
    elevation = ground.elevation.copy()
    color = _mix(_SPARSE, _LUSH, np.clip(ground.vegetation + np.float32(conditions.season), 0, 1))
    gravel = _GRAVEL[:, None, None] * (1 + 0.08 * fractal(shape, rng, slope=1.5, longest=30))
    color = _over(color, gravel, ground.bars)
    for form in forms:
        window = window_of(form, shape)
        if form.kind != BARE_PATCH:
            sink(elevation, form, window)
        if form.kind != GREEN_BOWL:
            part = color[:, window.rows, window.columns]
            color[:, window.rows, window.columns] = _bare(part, form, window, rng)
    color = _over(color, np.broadcast_to(_WATER[:, None, None], color.shape), ground.water)
    azimuth, altitude = conditions.sun_azimuth, conditions.sun_altitude
    shade = hillshade(ndimage.gaussian_filter(elevation, 0.6), pixel_size, azimuth=azimuth, altitude=altitude)
    lit = 0.30 + 0.70 * shade / np.sin(np.radians(altitude))
    color *= np.where(ground.water, 1.0, np.clip(lit, 0.3, 1.5)) ** 0.9
    color = _snow(color, elevation, ground.water, rng)
    color *= conditions.brightness * (1 + 0.045 * fractal(shape, rng, slope=0.8, longest=8))
    color += rng.normal(0, 0.0022, color.shape)
    color = ndimage.gaussian_filter(color, (0, 0.55, 0.55))  # the sensor's own blur
    return elevation, np.clip(color, 0.001, 1).astype(np.float32)


def _bare(part: Grid, form: Landform, window: LandformWindow, rng: np.random.Generator) -> Grid:
    streaks = flow_lines(window, rng)
    wet = np.clip(0.4 + 0.22 * streaks + 0.18 * fractal(window.shape, rng, slope=2, longest=24), 0, 1)
    floor = _mix(_MUD, _WET_MUD, wet)
    islands = (fractal(window.shape, rng, slope=2.4, longest=18) > 1.45) & (window.edge > 3)
    floor = np.where(islands, 0.5 * part + 0.5 * floor, floor)
    if form.kind == SLUMP:
        exposed = np.clip(1 - np.abs(window.edge - 1.8) / 1.6, 0, 1) * np.clip((0.55 - window.along) / 0.2, 0, 1)
        floor = floor * (1 - 0.8 * exposed) + _HEADWALL[:, None, None] * 0.8 * exposed
    softness = np.clip(window.edge / (1.2 if form.kind == SLUMP else 2.5), 0, 1)
    fade = softness * np.where(form.kind == SLUMP, 1 - 0.35 * np.clip((window.along - 0.75) / 0.25, 0, 1), 1)
    if form.is_split:
        fade = fade * np.clip((window.along - OVERGROWN + 0.05) / 0.1, 0, 1)
    return np.asarray(part * (1 - fade) + floor * fade, dtype=np.float32)


def _snow(color: Grid, elevation: Grid, water: Mask, rng: np.random.Generator) -> Grid:
    """A few late snow patches in hollows that face north."""
    hollow = np.asarray(ndimage.gaussian_filter(elevation, 25)) - elevation
    rows, columns = elevation.shape
    chance = hollow / hollow.std() + fractal((rows, columns), rng, slope=2.5, longest=60)
    patches = ndimage.binary_opening((chance > np.quantile(chance, 0.9985)) & ~water)
    return _over(color, np.broadcast_to(_SNOW[:, None, None], color.shape), patches)


def _mix(low: NDArray[np.float64], high: NDArray[np.float64], share: Grid) -> Grid:
    return (low[:, None, None] * (1 - share) + high[:, None, None] * share).astype(np.float32)


def _over(color: Grid, top: NDArray[np.floating], where: Mask) -> Grid:
    share = ndimage.gaussian_filter(where.astype(np.float32), 0.8)
    return np.asarray(color * (1 - share) + top * share, dtype=np.float32)
