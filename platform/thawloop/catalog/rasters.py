"""Looking at a raster before it becomes a scene: what it holds, where it lies, and whether it can be used.

Pixels are only ever read in small windows; nothing here needs memory in proportion to the file.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import rasterio
from affine import Affine
from django.conf import settings
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window
from shapely.geometry import MultiPolygon

from thawloop.catalog.errors import RasterRefused
from thawloop.catalog.files import canonical_uri, sniff_driver
from thawloop.catalog.gdal import gdal_environment
from thawloop.catalog.geometry import WGS84
from thawloop.catalog.sidecars import check_sidecars
from thawloop.catalog.turns import turn_of
from thawloop.catalog.vrt import check_vrt
from thawloop.catalog.wrapping import outline_to_polygon
from thawloop.core.foreign import error_text
from thawloop.core.storage import checked_uri

_LARGEST_BLOCK_BYTES = 512 * 1024 * 1024
_PROBE_PX = 64
_OUTLINE_POINTS_PER_EDGE = 32


@dataclass(frozen=True)
class RasterFacts:
    """What registration needs to know of a raster.

    `transform` is the affine a-f from pixels to `crs` (WKT2); `pixel_size` is in metres on the ground at the centre.
    """

    uri: str
    width: int
    height: int
    dtype: str
    crs: str
    transform: tuple[float, ...]
    pixel_size: float
    footprint: MultiPolygon
    bands: int
    descriptions: tuple[str, ...]
    colors: tuple[str, ...]


@contextmanager
def open_raster(uri: str) -> Iterator[DatasetReader]:
    """Open a raster below the allowed roots with an allowed driver.

    Raises:
        Refused: The place is not allowed.
        RasterRefused: It is missing, of a format that is not read, or broken.
    """
    with gdal_environment(), open_checked(uri) as dataset:
        yield dataset


def open_checked(uri: str) -> DatasetReader:
    """`open_raster` for callers that set GDAL's environment and close the file themselves."""
    path, driver = checked_uri(uri), checked_driver(canonical_uri(uri))
    try:
        for file in files_of(canonical_uri(uri)):
            check_sidecars(file, sniff_driver(file))
        return rasterio.open(path, driver=driver)
    except (RasterioError, ValueError) as error:
        raise RasterRefused(f"{uri} cannot be opened as {driver}: {error_text(error)}") from error


def checked_driver(uri: str) -> str:
    """The GDAL driver for a file, recognised by its first bytes; what a VRT refers to is checked too."""
    driver = sniff_driver(uri)
    if driver == "VRT":
        check_vrt(uri)
    return driver


def files_of(uri: str) -> list[str]:
    """The file itself and, for a VRT, every file it reads."""
    return [uri, *(check_vrt(uri) if sniff_driver(uri) == "VRT" else [])]


def inspect_raster(uri: str, *, color_table_ignored: bool = False) -> RasterFacts:
    """Read a raster's facts and refuse what cannot be a scene.

    Args:
        uri: The raster.
        color_table_ignored: Whether the numbers of a file with a colour table are measurements.

    Raises:
        Refused: The place is not allowed, or the file cannot be used; the sentence says why and what to do.
    """
    with open_raster(uri) as dataset:
        _check_size(dataset)
        crs = _checked_crs(dataset)
        _check_kind(dataset, color_table_ignored)
        return RasterFacts(
            uri=canonical_uri(uri),
            width=dataset.width,
            height=dataset.height,
            dtype=dataset.dtypes[0],
            crs=crs.to_wkt("WKT2_2019"),
            transform=tuple(dataset.transform[:6]),
            pixel_size=_ground_size(dataset, crs),
            footprint=_footprint(dataset, crs),
            bands=dataset.count,
            descriptions=tuple(description or "" for description in dataset.descriptions),
            colors=tuple(color.name for color in dataset.colorinterp),
        )


def probe_pixels(uri: str, bands: Sequence[int]) -> None:
    """Read small windows at the corners and the centre, and the smallest overview.

    Raises:
        RasterRefused: The pixels cannot be read: the file was cut short or is damaged.
    """
    with open_raster(uri) as dataset:
        w, h = min(_PROBE_PX, dataset.width), min(_PROBE_PX, dataset.height)
        right, low = dataset.width - w, dataset.height - h
        corners = [(0, 0), (right, 0), (0, low), (right, low), (right // 2, low // 2)]
        try:
            for column, row in dict.fromkeys(corners):
                dataset.read(list(bands), window=Window(column, row, w, h))
            if overviews := dataset.overviews(bands[0]):
                coarse = (max(1, dataset.height // overviews[-1]), max(1, dataset.width // overviews[-1]))
                if coarse[0] * coarse[1] <= 4 * _PROBE_PX * _PROBE_PX * 64:
                    dataset.read(bands[0], out_shape=coarse)
        except (RasterioError, MemoryError) as error:
            raise damaged(uri, error) from error


def damaged(uri: str, error: BaseException) -> RasterRefused:
    """What to say of a raster whose pixels cannot be read."""
    return RasterRefused(
        f"The pixels of {uri} cannot be read ({error_text(error)}): the file is damaged or was cut short; "
        "copy or download it again."
    )


def match_bands(facts: RasterFacts, wanted: Sequence[str]) -> list[int]:
    """Which bands of the file (from 1) hold the modality's, by description, colour or count.

    Raises:
        RasterRefused: Neither tells.
    """
    for names in (facts.descriptions, facts.colors):
        lowered = [name.lower() for name in names]
        if all(lowered.count(band.lower()) == 1 for band in wanted):
            return [lowered.index(band.lower()) + 1 for band in wanted]
    plain = [i for i, color in enumerate(facts.colors, start=1) if color != ColorInterp.alpha.name]
    if len(plain) == len(wanted):
        return plain
    named = ", ".join(f"{i} {name}" for i, name in enumerate(facts.descriptions[:20], start=1) if name)
    raise RasterRefused(
        f"{facts.uri} has {facts.bands} bands ({named or 'without names'}) and the modality needs "
        f"{', '.join(wanted)}: say which with --band-indexes, e.g. --band-indexes "
        f"{','.join(str(i) for i in range(1, len(wanted) + 1))}."
    )


def _check_size(dataset: DatasetReader) -> None:
    pixels = dataset.width * dataset.height
    if pixels > settings.THAWLOOP_MAX_RASTER_PIXELS:
        raise RasterRefused(
            f"{dataset.name} has {dataset.width} x {dataset.height} = {pixels:,} pixels, more than the "
            f"{settings.THAWLOOP_MAX_RASTER_PIXELS:,} allowed by THAWLOOP_MAX_RASTER_PIXELS: cut it into scenes."
        )
    rows, columns = dataset.block_shapes[0]
    if rows * columns * np.dtype(_plain(dataset.dtypes[0])).itemsize > _LARGEST_BLOCK_BYTES:
        raise RasterRefused(
            f"{dataset.name} is stored in blocks of {columns} x {rows} pixels, too large to read in parts: "
            "rewrite it with `gdal_translate -of COG`."
        )


def _plain(dtype: str) -> str:
    return {"complex_int16": "complex64"}.get(dtype, dtype)


def _checked_crs(dataset: DatasetReader) -> CRS:
    points, _ = dataset.gcps
    if points and dataset.transform.is_identity:
        raise RasterRefused(
            f"{dataset.name} is placed by {len(points)} ground control points only: warp it first, e.g. with "
            "`gdalwarp -tps -t_srs EPSG:3413 -of COG`."
        )
    if dataset.crs is None:
        raise RasterRefused(
            f"{dataset.name} has no coordinate reference system: find out which it is in and assign it with "
            "`gdal_edit.py -a_srs EPSG:...`."
        )
    if dataset.transform.is_identity or dataset.transform.is_degenerate:
        raise RasterRefused(
            f"{dataset.name} does not say where it lies (no geotransform, no world file): georeference it first."
        )
    try:
        crs = CRS.from_wkt(dataset.crs.to_wkt())
    except CRSError as error:
        raise RasterRefused(
            f"The coordinate reference system of {dataset.name} cannot be understood: {error}"
        ) from error
    if not (crs.is_projected or crs.is_geographic):
        raise RasterRefused(
            f"{dataset.name} is in a coordinate reference system ({crs.name}) that is not tied to the Earth: "
            "assign the right one with `gdal_edit.py -a_srs EPSG:...`."
        )
    return crs


def _check_kind(dataset: DatasetReader, color_table_ignored: bool) -> None:
    if any(np.dtype(_plain(dtype)).kind == "c" for dtype in dataset.dtypes):
        raise RasterRefused(
            f"{dataset.name} holds complex numbers (radar single-look data): compute amplitude or another real-valued "
            "product first."
        )
    if ColorInterp.palette in dataset.colorinterp and not color_table_ignored:
        raise RasterRefused(
            f"{dataset.name} holds indexes into a colour table, not measurements: expand it with "
            "`gdal_translate -expand rgb`, or register the raster it was made from; if its numbers are measurements "
            "and the table only colours them, say so (--color-table ignored)."
        )


def _footprint(dataset: DatasetReader, crs: CRS) -> MultiPolygon:
    """The raster's outline in EPSG:4326: edges densified before they are moved, split at ±180, closed over poles."""
    w, h, n = dataset.width, dataset.height, _OUTLINE_POINTS_PER_EDGE
    across, down = np.linspace(0, w, n, endpoint=False), np.linspace(0, h, n, endpoint=False)
    zero = np.zeros(n)
    columns = np.concatenate([across, zero + w, w - across, zero, [0.0]])
    rows = np.concatenate([zero, down, zero + h, h - down, [0.0]])
    lon, lat = _to_degrees(dataset.name, crs, dataset.transform, columns, rows)
    outline = outline_to_polygon(np.column_stack([lon, lat]))
    if outline.is_empty or not outline.is_valid:
        raise RasterRefused(
            f"The outline of {dataset.name} folds over itself on the globe: its coordinate reference system "
            f"({crs.name}) does not fit its coordinates."
        )
    return outline


def _ground_size(dataset: DatasetReader, crs: CRS) -> float:
    """Square root of a pixel's area on the ground at the raster's centre, in metres."""
    x, y = dataset.width / 2, dataset.height / 2
    columns, rows = np.array([x, x + 1, x]), np.array([y, y, y + 1])
    lon, lat = _to_degrees(dataset.name, crs, dataset.transform, columns, rows)
    _, _, sides = WGS84.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])
    size = math.sqrt(sides[0] * sides[1])
    if not (math.isfinite(size) and size > 0):
        raise RasterRefused(f"{dataset.name} has pixels without extent on the ground: its georeferencing is broken.")
    return size


def _to_degrees(
    name: str, crs: CRS, transform: Affine, columns: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    x: np.ndarray
    # affine's stubs know no arrays
    x, y = transform @ (columns, rows)  # type: ignore[operator,assignment]
    turn = turn_of(crs)
    if crs.is_geographic and turn is not None:
        # The outermost pixels of a global raster are often centred on the pole, and reach half their size beyond it.
        pole = turn.length / 4
        y = np.where(np.abs(y) <= pole + abs(transform.e), np.clip(y, -pole, pole), y)  # type: ignore[assignment]
    try:
        lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y, errcheck=True)
    except ProjError as error:
        raise RasterRefused(
            f"The corners of {name} do not lie on the globe in its coordinate reference system ({crs.name}): {error}"
        ) from error
    if not (np.isfinite(lon).all() and np.isfinite(lat).all() and np.abs(lat).max() <= 90.0 + 1e-6):
        raise RasterRefused(
            f"The corners of {name} do not lie on the globe in its coordinate reference system ({crs.name}): "
            "one of the two is wrong."
        )
    if turn is not None:
        # A corner at 190 degrees may have come back as -170, one at -180 as 180: x says which is meant.
        expected = lon[0] + (x - x[0]) * 360.0 / turn.length
        lon = lon + 360.0 * np.round((expected - lon) / 360.0)
    return lon, np.clip(lat, -90.0, 90.0)
