"""A sample of a raster costs what a sample should, whatever overviews the file has."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from thawloop.catalog.sampling import sample_windows

SMALL = {"whole": 64, "windows_per_axis": 3, "window": 16}


@pytest.mark.parametrize(
    ("side", "overviews", "windows", "shrink"),
    [
        (128, [], 1, 2),
        (1024, [], 9, 1),
        (1024, [2, 4, 8, 16], 1, 16),
        (1024, [2], 9, 1),  # half a huge raster is no sample
        (1024, [64], 9, 1),  # coarser than what is asked for: GDAL would not use it
    ],
)
def test_all_of_a_raster_is_looked_at_only_through_an_overview_that_makes_it_cheap(
    write_raster, side, overviews, windows, shrink
):
    path = write_raster(np.ones((1, side, side), np.uint8), tiled=True, blockxsize=16, blockysize=16)
    if overviews:
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews(overviews, Resampling.nearest)
    with rasterio.open(path) as raster:
        found = sample_windows(raster, **SMALL)
    assert (len(found), {step for _, step in found}) == (windows, {shrink})
