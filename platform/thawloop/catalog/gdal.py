"""GDAL's configuration: one set of settings and one list of drivers, for every raster that ThawLoop opens."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import rasterio
from django.conf import settings
from rasterio.errors import NotGeoreferencedWarning

# GDAL warns of every unusual tag each time a file is opened; what makes a file unusable is raised as an error.
logging.getLogger("rasterio._env").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

SETTINGS: dict[str, Any] = {
    # A folder of a hundred thousand scenes must not be listed to open one; side-car files are still found by name.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # Rasters name other rasters (VRT, overviews, masks): none of that may reach the network or run code.
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "GDAL_HTTP_MAX_RETRY": 0,
    "GDAL_HTTP_TIMEOUT": 30,
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    "VRT_SHARED_SOURCE": 0,
    "GDAL_MAX_DATASET_POOL_SIZE": 100,
    "GDAL_PAM_ENABLED": "YES",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
}

# Where s3:// roots are allowed, GDAL must be able to fetch; what it fetches is checked before (`storage.checked_uri`).
S3_SETTINGS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}

# First bytes → GDAL driver. The format is recognised by content, so that a renamed file cannot choose its own driver.
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2OpenJPEG"),
    (b"\xffO\xffQ", "JP2OpenJPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
)
FORMATS = "GeoTIFF, Cloud Optimized GeoTIFF, JPEG 2000, VRT, PNG and JPEG"


@contextmanager
def gdal_environment() -> Iterator[None]:
    """Apply the settings to every GDAL call of the block (and of this thread)."""
    s3 = any(root.startswith("s3://") for root in settings.THAWLOOP_DATA_ROOTS)
    # In bytes: GDAL itself takes small numbers for megabytes, rasterio hands them on as bytes, and nothing is kept.
    cache = {"GDAL_CACHEMAX": settings.THAWLOOP_RASTER_CACHE_MB * 1024 * 1024}
    with rasterio.Env(**(_s3_settings() if s3 else SETTINGS), **cache):
        yield


def _s3_settings() -> dict[str, Any]:
    # The list of what may be fetched has to be absent: an empty one allows nothing.
    local = {name: value for name, value in SETTINGS.items() if name != "CPL_VSIL_CURL_ALLOWED_EXTENSIONS"}
    return local | S3_SETTINGS | _s3_endpoint()


def _s3_endpoint() -> dict[str, Any]:
    """AWS_ENDPOINT_URL in GDAL's words; keys it reads from the environment as everybody does."""
    if not (endpoint := urlsplit(settings.AWS_ENDPOINT_URL)).netloc:
        return {}
    https = "NO" if endpoint.scheme == "http" else "YES"
    return {"AWS_S3_ENDPOINT": endpoint.netloc, "AWS_HTTPS": https, "AWS_VIRTUAL_HOSTING": "FALSE"}


def driver_of(head: bytes) -> str | None:
    """The GDAL driver for a file that begins with `head`, or None if its format is not one we read."""
    for signature, driver in SIGNATURES:
        if head.startswith(signature):
            return driver
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<VRTDataset", b"<?xml")) and b"<VRTDataset" in head:
        return "VRT"
    return None
