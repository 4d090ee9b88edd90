"""Resampling one scene onto a tile's pixels, and which of them are valid.

The result equals that of rasterio's WarpedVRT on the same grid (given the same XSCALE and YSCALE), but validity is
exact for every kind of nodata (value, NaN, infinity, mask, alpha, mask band, override), and files stay open.
"""

from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.warp import reproject
from rasterio.windows import Window

from contracts.pixels import declared_valid, measurements
from thawloop.catalog.models import Scene
from thawloop.catalog.placement import Piece, Placement, Target, look, pieces

Array = NDArray[np.float32]

# Beyond this many source pixels per target pixel, averaging beats interpolating, which would skip some of them.
_AVERAGE_FROM = 2.0
# Never read more than this many source pixels per target pixel and axis; the rest is averaged by GDAL while reading.
_OVERSAMPLE = 4
# Source pixels so little smaller than the target's are interpolated between, not smoothed.
_SAME_SIZE = 1.05


def read_scene(
    dataset: DatasetReader, scene: Scene, placement: Placement, target: Target, resampling: Resampling
) -> Array | None:
    """Read a scene's bands onto the target.

    Returns:
        float32 [bands, height, width] in the modality's unit, NaN in every band where there is no data; None where
        the scene and the target share no pixel.

    Raises:
        rasterio.errors.RasterioError: The file cannot be read.
    """
    if placement.aligned and (placement.turn is None or _inside(dataset, target)):
        return _copy(dataset, scene, target)
    view = look(dataset, placement, target)
    if view is None:
        return None
    shrink = max(1, int(view.ratio // _OVERSAMPLE))
    ratio = view.ratio / shrink
    if ratio >= _AVERAGE_FROM and resampling != Resampling.nearest:
        resampling = Resampling.average
    result: Array | None = None
    for piece in pieces(dataset, placement, view, joined=shrink == 1):
        values, transform = _read_piece(dataset, scene, piece, shrink)
        valid = ~np.isnan(values[0])
        if not valid.any():
            continue
        across = len(view.turns) > 1
        whole = bool(valid.all()) and not piece.clipped and not across
        for turn in view.turns:
            moved = Affine.translation(turn, 0) @ transform
            warped = _warp(values, moved, placement, target, resampling, ratio=ratio, whole=whole, across=across)
            result = warped if result is None else np.where(np.isnan(result[0]), warped, result)
            if not np.isnan(result[0]).any():
                return result
    return result


def _read_piece(dataset: DatasetReader, scene: Scene, piece: Piece, shrink: int) -> tuple[Array, Affine]:
    parts = [read_window(dataset, scene, window, shrink) for window in piece.windows]
    values = parts[0][0] if len(parts) == 1 else np.concatenate([values for values, _ in parts], axis=2)
    return values, Affine.translation(piece.shift, 0) @ parts[0][1]


def _inside(dataset: DatasetReader, target: Target) -> bool:
    """Whether a scene covers all of a target on the same pixels."""
    column, row = ~dataset.transform @ (target.transform.c, target.transform.f)
    fits_x = 0 <= round(column) <= dataset.width - target.width
    return bool(fits_x and 0 <= round(row) <= dataset.height - target.height)


def _copy(dataset: DatasetReader, scene: Scene, target: Target) -> Array | None:
    """Plain windowed read of a scene whose pixels are the grid's."""
    column, row = ~dataset.transform @ (target.transform.c, target.transform.f)
    left, top = round(column), round(row)
    inside = Window(
        max(left, 0),
        max(top, 0),
        min(left + target.width, dataset.width) - max(left, 0),
        min(top + target.height, dataset.height) - max(top, 0),
    )
    if inside.width <= 0 or inside.height <= 0:
        return None
    values, _ = read_window(dataset, scene, inside, 1)
    if values.shape[1:] == (target.height, target.width):
        return values
    result = np.full((len(values), target.height, target.width), np.nan, dtype=np.float32)
    y, x = inside.row_off - top, inside.col_off - left
    result[:, y : y + inside.height, x : x + inside.width] = values
    return result


def read_window(dataset: DatasetReader, scene: Scene, window: Window, shrink: int) -> tuple[Array, Affine]:
    """Read a window of a scene's file.

    Returns:
        float32 [bands, h, w] in the modality's unit with NaN in every band for no data, `shrink` times smaller than
        the window, and the transform of those pixels.
    """
    height, width = max(1, round(window.height / shrink)), max(1, round(window.width / shrink))
    method = Resampling.average if shrink > 1 and _gdal_knows_nodata(scene) else Resampling.nearest
    shape = (height, width)
    raw = dataset.read(
        scene.band_indexes, window=window, out_shape=(len(scene.band_indexes), *shape), resampling=method
    )
    values, valid = measurements(raw, scene.scale, scene.offset)
    valid &= _declared_valid(dataset, scene, raw, window)
    values[:, ~valid] = np.nan
    moved = dataset.transform @ Affine.translation(window.col_off, window.row_off)
    return values, moved @ Affine.scale(window.width / width, window.height / height)


def _gdal_knows_nodata(scene: Scene) -> bool:
    """Whether averaging may be left to GDAL: it leaves out what the file declares invalid, and knows nothing else."""
    return scene.nodata is None and scene.mask_band is None and scene.alpha == Scene.Alpha.VALIDITY


def _declared_valid(dataset: DatasetReader, scene: Scene, raw: NDArray[Any], window: Window) -> NDArray[np.bool_]:
    """Where the file, or what was said at registration, declares data [H, W]."""
    if scene.mask_band is not None:
        mask = dataset.read(scene.mask_band, window=window, out_shape=raw.shape[1:], resampling=Resampling.nearest)
        return np.asarray(mask != 0)
    own_mask = scene.alpha == Scene.Alpha.VALIDITY
    return declared_valid(dataset, scene.band_indexes, raw, nodata=scene.nodata, own_mask=own_mask, window=window)


def _warp(
    values: Array,
    transform: Affine,
    placement: Placement,
    target: Target,
    resampling: Resampling,
    *,
    ratio: float,
    whole: bool,
    across: bool,
) -> Array:
    """Resample onto the target; `whole` sources skip the bookkeeping of validity, which costs half the time."""
    result = np.full((len(values), target.height, target.width), np.nan, dtype=np.float32)
    empty = {} if whole else {"src_nodata": np.nan, "dst_nodata": np.nan}
    # From the target's edge GDAL would compute too small a part of the source where x wraps around within the target.
    everything = {"SOURCE_EXTRA": max(values.shape)} if across else {}
    # GDAL would guess the scale of its kernels from the window it is given, and so from what lies around the tile.
    scale = 1.0 if ratio < _SAME_SIZE else 1.0 / ratio
    reproject(
        values,
        result,
        src_transform=transform,
        src_crs=placement.scene_crs,
        dst_transform=target.transform,
        dst_crs=placement.grid_crs,
        resampling=resampling,
        init_dest_nodata=not whole,
        INSERT_CENTER_LONG="NO",  # GDAL would count longitudes around the middle of the window; `pieces` has done so
        XSCALE=scale,
        YSCALE=scale,
        **everything,
        **empty,
    )
    result[:, np.isnan(result).any(axis=0)] = np.nan
    return result
