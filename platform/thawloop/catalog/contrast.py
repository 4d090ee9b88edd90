"""Contrast: which values become dark and which bright in pictures.

A modality says with the parameter `stretch` how it is shown:

* `scene`: as the scene on top asks for, so that neighbouring tiles look alike. Optical imagery gets a tone curve that
  gives levels to what covers ground (histogram equalisation with a limit on how much any value may take), so that
  clouds, snow, ice, saturated pixels and a collar of zeros neither blacken the land nor vanish; measured elevation is
  stretched evenly over its 2nd to 98th percentile.
* `relief`: the modality's range, with most levels near the neutral value (0 where the range has two signs, flat ground
  of a shaded relief, else the least value), so that a slump of two metres is seen beside a valley of fifty.
* `range`: the modality's range, evenly.

Without the parameter, optical imagery and elevation are shown by `scene`, terrain by `relief`, all else by `range`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from thawloop.catalog.models import Modality, Scene
from thawloop.catalog.rasters import open_raster
from thawloop.catalog.resampling import read_window
from thawloop.catalog.sampling import sample_windows
from thawloop.catalog.selectors import scene_state
from thawloop.catalog.terrain import DEFAULT_ALTITUDE

Array = NDArray[np.float32]

STRETCHES = ("range", "scene", "relief")
PERCENTILES = (2.0, 98.0)
_SAMPLE = {"whole": 512, "windows_per_axis": 4, "window": 192}

_BINS = 64
_MOST_OF_A_BIN = 2.0  # times its even share
_DARKEST, _BRIGHTEST = 0.5, 99.8  # percentiles: values beyond are noise
_SPIKE = 0.01  # a share of pixels that are all at the smallest or at the largest value is not measurements


@dataclass(frozen=True)
class Tones:
    """From values to levels.

    Attributes:
        offset: float32 [C]; with `scale`, makes bands alike: place = (value - offset) / scale.
        scale: float32 [C], positive.
        places: float64 [K], increasing.
        levels: float64 [K], from 0 (dark) to 1, of each place; between them straight lines.
    """

    offset: Array
    scale: Array
    places: NDArray[np.float64]
    levels: NDArray[np.float64]

    def apply(self, values: Array) -> NDArray[np.uint8]:
        """Levels 0-255 of values [C, H, W] without NaN."""
        places = (values - self.offset[:, None, None]) / self.scale[:, None, None]
        levels: NDArray[np.uint8] = (np.interp(places, self.places, self.levels) * 255 + 0.5).astype(np.uint8)
        return levels


def tones_of(modality: Modality, scene: Scene | None) -> Tones:
    """How to show a modality where a scene (None: none, or derived from others) is on top."""
    stretch = modality.parameters.get("stretch") or _default_stretch(modality)
    if stretch == "scene" and scene is not None and not modality.is_derived:
        found = _scene_tones(scene.pk, modality.kind == Modality.Kind.OPTICAL, scene_state(scene))
        if found is not None:
            return found
    bands = len(modality.bands)
    low, high = modality.range_min, modality.range_max
    places = np.linspace(low, high, 65 if stretch == "relief" else 2, dtype=np.float64)
    levels = _relief(modality, places) if stretch == "relief" else np.array([0.0, 1.0])
    return Tones(np.zeros(bands, np.float32), np.ones(bands, np.float32), places, levels)


def _default_stretch(modality: Modality) -> str:
    if modality.kind in (Modality.Kind.OPTICAL, Modality.Kind.ELEVATION):
        return "scene"
    return "relief" if modality.kind == Modality.Kind.TERRAIN else "range"


def _relief(modality: Modality, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Levels around a neutral one, compressed by the inverse hyperbolic sine: even near it, logarithmic far away."""
    low, high = modality.range_min, modality.range_max
    if modality.derivation == Modality.Derivation.HILLSHADE:
        neutral = math.sin(math.radians(modality.parameters.get("altitude", DEFAULT_ALTITUDE)))
        unit = (high - low) / 25  # about what a slope of 1 in 20 facing the light adds
    elif low < 0 < high:
        neutral, unit = 0.0, (high - low) / 200  # half a metre of ±50
    else:
        neutral, unit = low, (high - low) / 18  # five degrees of 90
    neutral = min(max(neutral, low), high)
    up, down = np.arcsinh((high - neutral) / unit), np.arcsinh((neutral - low) / unit)
    middle = 0.5 if up and down else float(down > 0)
    bent = np.arcsinh((values - neutral) / unit)
    levels = np.where(bent >= 0, middle + (1 - middle) * bent / (up or 1), middle + middle * bent / (down or 1))
    return np.clip(levels, 0.0, 1.0)


@lru_cache(maxsize=1024)
def _scene_tones(scene_id: int, is_optical: bool, state: str) -> Tones | None:
    """Tones by a sample of a scene; None where the sample has too few values. `state` is part of the cache's key."""
    scene = Scene.objects.get(pk=scene_id)
    with open_raster(scene.uri) as dataset:
        samples = [_pixels(dataset, scene, window, shrink) for window, shrink in sample_windows(dataset, **_SAMPLE)]
    pixels = _measured(np.concatenate(samples, axis=1))
    return (_equalised if is_optical else _even)(pixels) if pixels.shape[1] else None


def _measured(pixels: Array) -> Array:
    """Pixels without those at the smallest or largest value in all bands, if they are many: collars, saturation."""
    if not pixels.shape[1]:
        return pixels
    keep = np.ones(pixels.shape[1], dtype=bool)
    for end in (pixels.min(axis=1, keepdims=True), pixels.max(axis=1, keepdims=True)):
        at_end = (pixels == end).all(axis=0)
        if at_end.mean() > _SPIKE:
            keep &= ~at_end
    return pixels[:, keep]


def _even(pixels: Array) -> Tones | None:
    low, high = np.percentile(pixels, PERCENTILES, axis=1).astype(np.float32)
    if not (high > low).all():
        return None
    return Tones(low, high - low, np.array([0.0, 1.0]), np.array([0.0, 1.0]))


def _equalised(pixels: Array) -> Tones | None:
    """One curve for all bands, each taken from its darkest to its 90th percentile, so that colours stay natural.

    Histogram equalisation on a logarithmic axis (inverse hyperbolic sine, which bears the dark end) in which no bin
    counts for more than twice its even share (clip limit as in Pizer et al. 1987, Comput. Vision Graph. 39): a cloud
    over a tenth of the scene takes about a tenth of the levels, and so does one over a hundredth, where percentiles
    give it none or, from the second hundredth on, almost all.
    """
    dark, bright = np.percentile(pixels, (_DARKEST, 90.0), axis=1).astype(np.float32)
    if not (bright > dark).all():
        return None
    places = ((pixels - dark[:, None]) / (bright - dark)[:, None]).ravel()
    low, tenth, high = np.percentile(places, (_DARKEST, 10.0, _BRIGHTEST))
    unit = max(tenth - low, (high - low) / 100)
    bent = np.arcsinh((np.clip(places, low, high) - low) / unit)
    counts, edges = np.histogram(bent, bins=_BINS, range=(0.0, float(np.arcsinh((high - low) / unit))))
    shares = np.minimum(counts / counts.sum(), _MOST_OF_A_BIN / _BINS)
    levels = np.concatenate([[0.0], np.cumsum(shares)]) / shares.sum()
    return Tones(dark, bright - dark, np.sinh(edges) * unit + low, levels)


def _pixels(dataset: DatasetReader, scene: Scene, window: Window, shrink: int) -> Array:
    values, _ = read_window(dataset, scene, window, shrink)
    return values[:, ~np.isnan(values[0])]
