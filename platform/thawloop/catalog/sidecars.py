"""Side-car files that GDAL reads by itself for a raster: overviews, masks, and files that its tags name.

Overviews (`.ovr`) and masks (`.msk`) may be of any format, a VRT to elsewhere included, and a tag `OVERVIEW_FILE`, in
the file or its `.aux.xml`, may name any file: pixels of other files would be shown as the raster's.
"""

import os

import rasterio

from thawloop.catalog.errors import RasterRefused
from thawloop.catalog.files import canonical_uri, sniff_driver
from thawloop.core.errors import Refused
from thawloop.core.storage import checked_uri

_ENDINGS = (".ovr", ".OVR", ".msk", ".MSK")


def check_sidecars(uri: str, driver: str) -> None:
    """Check what GDAL would read for a raster beside its own file. Works within `gdal_environment`.

    Args:
        uri: The raster, already checked itself.
        driver: Its GDAL driver.

    Raises:
        RasterRefused: An overview or mask file is no GeoTIFF or lies elsewhere, or a tag names one.
        rasterio.errors.RasterioError: The raster cannot be opened.
    """
    if "://" not in uri:  # `gdal_environment` looks for no side-car files where s3:// roots are allowed
        for ending in _ENDINGS:
            _check_sidecar(f"{uri}{ending}")
    with rasterio.open(checked_uri(uri), driver=driver) as dataset:
        tags = {name.upper() for name in dataset.tags(ns="OVERVIEWS")}
    if "OVERVIEW_FILE" in tags:
        raise RasterRefused(
            f"{uri} says that its overviews are in another file (OVERVIEW_FILE), which is not followed here: "
            "rewrite it with `gdal_translate -of COG`."
        )


def _check_sidecar(sidecar: str) -> None:
    if not os.path.lexists(sidecar):
        return
    try:
        canonical = canonical_uri(sidecar)
        driver = sniff_driver(canonical)
    except Refused as error:
        raise RasterRefused(f"The overviews or mask beside a raster cannot be used: {error}") from error
    if driver != "GTiff":
        raise RasterRefused(
            f"{sidecar} holds overviews or a mask as {driver}, only GeoTIFF may: remove it, or make it again with "
            "`gdaladdo -ro`."
        )
    check_sidecars(canonical, driver)
