"""Which windows of a raster to read as a sample of it, without reading it whole."""

import numpy as np
from rasterio.io import DatasetReader
from rasterio.windows import Window


def sample_windows(
    dataset: DatasetReader, *, whole: int, windows_per_axis: int, window: int
) -> list[tuple[Window, int]]:
    """Windows to read, and how much to shrink each: the whole raster where that is cheap, else a regular few.

    Args:
        dataset: The raster.
        whole: Pixels along the longer side of a sample of all of it; up to twice as many may have to be read for it.
        windows_per_axis: How many windows along each axis there are otherwise.
        window: Pixels of a window's side.
    """
    width, height = dataset.width, dataset.height
    shrink = max(1, max(width, height) // whole)
    # GDAL reads the coarsest overview that is fine enough.
    through = max((factor for factor in dataset.overviews(1) if factor <= shrink), default=1)
    if width * height <= 4 * (whole * through) ** 2:
        return [(Window(0, 0, width, height), shrink)]
    size_x, size_y = min(window, width), min(window, height)
    places = np.linspace(0.0, 1.0, windows_per_axis)
    return [
        (Window(int(x * (width - size_x)), int(y * (height - size_y)), size_x, size_y), 1)
        for x in places
        for y in places
    ]
