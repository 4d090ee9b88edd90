"""The ground of the generated scenes: hills, a river, lakes, and what grows on them. numpy and scipy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Grid = NDArray[np.float32]
Mask = NDArray[np.bool_]


def fractal(shape: tuple[int, int], rng: np.random.Generator, *, slope: float, longest: float) -> Grid:
    """Random field whose spectrum falls as a power of frequency: natural-looking at every scale.

    Args:
        shape: Rows, columns.
        rng: Source of randomness.
        slope: Spectral exponent; 2 is rough, 4 is smooth.
        longest: Longest wavelength in pixels; nothing larger is added.

    Returns:
        float32 [H, W], mean 0, standard deviation 1.
    """
    rows, columns = shape
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    amplitude = np.where(frequency > 0, np.maximum(frequency, 1 / longest) ** (-slope / 2), 0.0)
    amplitude *= 1 / (1 + (1 / (longest * np.maximum(frequency, 1e-9))) ** 8)
    noise = np.fft.rfft2(rng.standard_normal(shape))
    field = np.fft.irfft2(noise * amplitude, s=shape)
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


@dataclass(frozen=True)
class Ground:
    """Natural ground before any slump.

    Attributes:
        elevation: float32 [H, W], metres; lakes are flat.
        water: Where lakes and the river are.
        bars: Gravel along the river.
        vegetation: float32 [H, W], 0 (sparse) to 1 (lush).
    """

    elevation: Grid
    water: Mask
    bars: Mask
    vegetation: Grid


def make_ground(shape: tuple[int, int], pixel_size: float, rng: np.random.Generator) -> Ground:
    """Rolling moraine with a meandering river and lakes in the hollows."""
    hills = fractal(shape, rng, slope=4.0, longest=1100 / pixel_size)
    detail = fractal(shape, rng, slope=2.4, longest=150 / pixel_size)
    river = _river_distance(shape, rng) * pixel_size
    inland = 1 - np.exp(-((river / 260) ** 1.5))
    elevation = 40 + 13 * hills * inland + 9 * inland + 5 * np.log1p(river / 150) + 0.35 * detail
    channel = river < 14 + 4 * fractal(shape, rng, slope=3, longest=60)
    bars = (river < 40 + 22 * fractal(shape, rng, slope=3, longest=90)) & ~channel
    elevation = ndimage.gaussian_filter(elevation.astype(np.float32), 2.0)
    lakes = _lakes(elevation, hills, pixel_size)
    elevation = _flatten(elevation, lakes | channel)
    wetness = np.exp(-np.clip(elevation - np.percentile(elevation, 5), 0, None) / 25)
    vegetation = 0.50 + 0.16 * fractal(shape, rng, slope=2.2, longest=400) + 0.25 * (wetness - wetness.mean())
    vegetation += 0.05 * fractal(shape, rng, slope=1.2, longest=16)
    return Ground(
        elevation.astype(np.float32), lakes | channel, bars & ~lakes, np.clip(vegetation, 0.05, 1).astype(np.float32)
    )


def _river_distance(shape: tuple[int, int], rng: np.random.Generator) -> Grid:
    """Distance in pixels from a river that crosses from north to south with meanders."""
    rows, columns = shape
    along = np.linspace(0, 1, rows * 2)
    swing = sum(
        size * np.sin(2 * np.pi * (count * along + rng.random()))
        for count, size in ((1.3, 0.10), (3.1, 0.04), (7.3, 0.012))
    )
    column = np.clip((0.42 + swing) * columns, 2, columns - 3).astype(int)
    line = np.ones(shape, bool)
    line[np.clip((along * rows).astype(int), 0, rows - 1), column] = False
    return np.asarray(ndimage.distance_transform_edt(line), dtype=np.float32)


def _lakes(elevation: Grid, hills: Grid, pixel_size: float) -> Mask:
    """Hollows of the hills, without slivers."""
    around = ndimage.zoom(ndimage.gaussian_filter(elevation[::8, ::8], 32 / pixel_size), 8, order=1)
    hollow = elevation < around[: elevation.shape[0], : elevation.shape[1]] - 5.0
    hollow &= hills < -0.7
    labels, count = ndimage.label(ndimage.binary_opening(hollow, iterations=4))
    sizes = ndimage.sum_labels(hollow, labels, np.arange(count + 1))
    return np.asarray(np.isin(labels, np.flatnonzero(sizes > 9000 / pixel_size**2)) & (labels > 0))


def _flatten(elevation: Grid, water: Mask) -> Grid:
    """Each water body at the level of its lowest shore."""
    labels, count = ndimage.label(water)
    shore = water & ~ndimage.binary_erosion(water, iterations=2)
    means = np.asarray(ndimage.mean(elevation, np.where(shore, labels, 0), np.arange(1, count + 1))) - 0.5
    flat = elevation.copy()
    flat[water] = means[labels[water] - 1] if count else 0
    return flat


def hillshade(elevation: Grid, pixel_size: float, *, azimuth: float, altitude: float) -> Grid:
    """Cosine of the angle between sun and ground, 0 where the ground faces away. float32 [H, W]."""
    north, east = np.gradient(elevation, pixel_size)
    sun, height = np.radians(azimuth), np.radians(altitude)
    light = np.array([np.sin(sun) * np.cos(height), np.cos(sun) * np.cos(height), np.sin(height)])
    norm = np.sqrt(east**2 + north**2 + 1)
    # Rows run south: the gradient along rows is minus the one along north.
    return np.asarray(np.clip((-east * light[0] + north * light[1] + light[2]) / norm, 0, None), dtype=np.float32)
