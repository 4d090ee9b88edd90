"""Terrain from elevation: slope, shaded relief, elevation relative to the neighbourhood.

Input is elevation in metres with NaN where there is none and a halo around the tile; output has the same shape and the
caller cuts the halo off. Only pixels without elevation come out without a value: a missing neighbour is replaced by
the pixel itself, so that no rim is lost at the edge of a scene.
"""

import math

import numpy as np
from numpy.typing import NDArray

from thawloop.catalog.models import Modality

Array = NDArray[np.float32]

DEFAULT_RADIUS_M = 150.0
DEFAULT_AZIMUTH = 315.0
DEFAULT_ALTITUDE = 45.0


def halo_of(modality: Modality, pixel_m: float) -> int:
    """How many pixels around the tile the derivation needs, for pixels of `pixel_m` metres on the ground."""
    if modality.derivation == Modality.Derivation.RELATIVE_ELEVATION:
        return math.ceil(_radius(modality) / pixel_m)
    return 1


def derive_terrain(modality: Modality, elevation: Array, pixel_x: float, pixel_y: float) -> Array:
    """Compute a terrain modality.

    Args:
        modality: Its derivation and parameters say what.
        elevation: float32 [H, W], metres, halo included.
        pixel_x: Width of a pixel on the ground in metres.
        pixel_y: Height of a pixel on the ground in metres.

    Returns:
        float32 [H, W]: degrees, 0-1, or metres.
    """
    match modality.derivation:
        case Modality.Derivation.SLOPE:
            return slope(elevation, pixel_x, pixel_y)
        case Modality.Derivation.HILLSHADE:
            settings = modality.parameters
            return hillshade(
                elevation,
                pixel_x,
                pixel_y,
                azimuth=settings.get("azimuth", DEFAULT_AZIMUTH),
                altitude=settings.get("altitude", DEFAULT_ALTITUDE),
                exaggeration=settings.get("exaggeration", 1.0),
            )
        case Modality.Derivation.RELATIVE_ELEVATION:
            radius = _radius(modality)
            return relative_elevation(elevation, math.ceil(radius / pixel_x), math.ceil(radius / pixel_y))
    raise ValueError(f"{modality.derivation!r} is not a terrain derivation")


def _radius(modality: Modality) -> float:
    return float(modality.parameters.get("radius_m", DEFAULT_RADIUS_M))


def gradient(elevation: Array, pixel_x: float, pixel_y: float) -> tuple[Array, Array]:
    """Rise per metre to the east and to the south by Horn's method (Horn 1981, Proc. IEEE 69; as in gdaldem)."""
    height, width = elevation.shape
    padded = np.pad(elevation, 1, mode="edge")
    window = {
        (dy, dx): padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    }
    z = {place: np.where(np.isnan(values), elevation, values) for place, values in window.items()}
    east = z[-1, 1] + 2 * z[0, 1] + z[1, 1] - z[-1, -1] - 2 * z[0, -1] - z[1, -1]
    south = z[1, -1] + 2 * z[1, 0] + z[1, 1] - z[-1, -1] - 2 * z[-1, 0] - z[-1, 1]
    return east / np.float32(8 * pixel_x), south / np.float32(8 * pixel_y)


def slope(elevation: Array, pixel_x: float, pixel_y: float) -> Array:
    """Steepness in degrees, 0 (flat) to 90."""
    east, south = gradient(elevation, pixel_x, pixel_y)
    return np.degrees(np.arctan(np.hypot(east, south))).astype(np.float32)


def hillshade(
    elevation: Array,
    pixel_x: float,
    pixel_y: float,
    *,
    azimuth: float = DEFAULT_AZIMUTH,
    altitude: float = DEFAULT_ALTITUDE,
    exaggeration: float = 1.0,
) -> Array:
    """Shaded relief, 0 (in shadow) to 1 (facing the light); flat ground is sin(altitude).

    Args:
        elevation: float32 [H, W], metres.
        pixel_x: Width of a pixel on the ground in metres.
        pixel_y: Height of a pixel on the ground in metres.
        azimuth: Degrees clockwise from the top of the picture where the light comes from.
        altitude: Degrees of the light above the horizon.
        exaggeration: Factor on elevation.
    """
    east, south = gradient(elevation * np.float32(exaggeration), pixel_x, pixel_y)
    to_light, height = math.radians(azimuth), math.radians(altitude)
    # Cosine of the angle between the surface's normal (-east, south, 1) and the light, in east-north-up.
    lit = math.sin(height) + math.cos(height) * (south * math.cos(to_light) - east * math.sin(to_light))
    return np.clip(lit / np.sqrt(1 + east**2 + south**2), 0, 1).astype(np.float32)


def relative_elevation(elevation: Array, radius_x: int, radius_y: int) -> Array:
    """Elevation minus the mean of a box of 2 * radius + 1 pixels around, over the pixels that have elevation."""
    known = ~np.isnan(elevation)
    if not known.any():
        return np.full_like(elevation, np.nan)
    # Centred first: the mean of values of thousands of metres would lose centimetres in running sums.
    from scipy.ndimage import uniform_filter  # imported late: half a second that every process would pay

    base = float(np.mean(elevation[known], dtype=np.float64))
    filled = np.where(known, elevation - base, 0.0).astype(np.float64)
    size = (2 * radius_y + 1, 2 * radius_x + 1)
    weight = uniform_filter(known.astype(np.float64), size, mode="constant")
    mean = uniform_filter(filled, size, mode="constant") / np.maximum(weight, 1e-12)
    return np.where(known, (elevation - base) - mean, np.nan).astype(np.float32)
