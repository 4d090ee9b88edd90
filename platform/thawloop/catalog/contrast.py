"""Which values become black and white in pictures: a modality's range, or what a scene mostly holds."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from thawloop.catalog.models import Modality, Scene
from thawloop.catalog.rasters import open_raster
from thawloop.catalog.resampling import read_window

Limits = tuple[NDArray[np.float32], NDArray[np.float32]]

PERCENTILES = (2.0, 98.0)
_SAMPLE_PX = 512
_WINDOWS_PER_AXIS = 4
_WINDOW_PX = 192


def picture_limits(modality: Modality, scene: Scene | None) -> Limits:
    """The darkest and brightest value of each band, float32 [C] each.

    A modality says which with the parameter `stretch`: `range`, or `scene` (what is seen and measured is by default
    stretched to the scene that the tile shows most of, so that neighbouring tiles look alike; indices and terrain have
    a range that means something).
    """
    default = "scene" if modality.kind in (Modality.Kind.OPTICAL, Modality.Kind.ELEVATION) else "range"
    if modality.parameters.get("stretch", default) == "scene" and scene is not None and not modality.is_derived:
        low, high = _scene_limits(scene.pk)
        if np.isfinite(low).all() and (high > low).all():
            return low, high
    bands = len(modality.bands)
    return np.full(bands, modality.range_min, np.float32), np.full(bands, modality.range_max, np.float32)


@lru_cache(maxsize=1024)
def _scene_limits(scene_id: int) -> Limits:
    """Percentiles of each band over a sample of the scene; NaN where it has no data. Scenes never change."""
    scene = Scene.objects.get(pk=scene_id)
    with open_raster(scene.uri) as dataset:
        samples = [_pixels(dataset, scene, window, shrink) for window, shrink in _sample(dataset)]
    pixels = np.concatenate(samples, axis=1)
    if pixels.shape[1] == 0:
        nothing = np.full(len(scene.band_indexes), np.nan, np.float32)
        return nothing, nothing
    low, high = np.percentile(pixels, PERCENTILES, axis=1).astype(np.float32)
    return low, high


def _pixels(dataset: DatasetReader, scene: Scene, window: Window, shrink: int) -> NDArray[np.float32]:
    values, _ = read_window(dataset, scene, window, shrink)
    return values[:, ~np.isnan(values[0])]


def _sample(dataset: DatasetReader) -> list[tuple[Window, int]]:
    """Windows to read and how much to shrink them: the whole where that is cheap, else a regular few."""
    width, height = dataset.width, dataset.height
    if width * height <= 4 * _SAMPLE_PX**2 or dataset.overviews(1):
        return [(Window(0, 0, width, height), max(1, max(width, height) // _SAMPLE_PX))]
    size_x, size_y = min(_WINDOW_PX, width), min(_WINDOW_PX, height)
    places = np.linspace(0.0, 1.0, _WINDOWS_PER_AXIS)
    return [
        (Window(int(x * (width - size_x)), int(y * (height - size_y)), size_x, size_y), 1)
        for x in places
        for y in places
    ]
