"""How a file is interpreted at ingest: its mask, alpha band, scale and offset, and what looks wrong in it.

The rule itself is `contracts.pixels`; here a sample of the file decides what the rule leaves open, and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from contracts.pixels import declared_orientation, has_alpha, has_own_mask, hides_imagery
from thawloop.catalog.errors import RasterRefused
from thawloop.catalog.models import Scene
from thawloop.catalog.rasters import damaged, open_raster
from thawloop.catalog.resampling import read_window
from thawloop.catalog.sampling import sample_windows
from thawloop.catalog.scene_options import SceneOptions

# Below this share of valid pixels, something is probably wrong with how the file is read.
FEW_VALID = 0.05
_SAMPLE = {"whole": 1024, "windows_per_axis": 6, "window": 128}


@dataclass
class Remarks:
    """Sentences about a file: how it was interpreted, and what looks wrong."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def complete(scene: Scene, options: SceneOptions) -> None:
    """Decide how a scene's file is read and set it on the scene: scale, offset, alpha, valid share, remarks.

    Raises:
        RasterRefused: The file declares a different scale for each band, or its pixels cannot be read.
    """
    remarks = Remarks()
    with open_raster(scene.uri) as dataset:
        try:
            scene.scale, scene.offset = _scale(dataset, scene, options, remarks)
            windows = sample_windows(dataset, **_SAMPLE)
            scene.alpha = _alpha(dataset, scene, options, windows, remarks)
            scene.valid_share = _valid_share(dataset, scene, windows)
        except (RasterioError, MemoryError) as error:
            raise damaged(scene.uri, error) from error
        _say_colors(dataset, remarks)
        _say_orientation(dataset, scene, remarks)
    if scene.valid_share < FEW_VALID:
        remarks.warnings.append(
            f"Only {scene.valid_share:.1%} of the sampled pixels hold data: check nodata, mask and alpha."
        )
    scene.notes, scene.warnings = remarks.notes, remarks.warnings


def _scale(dataset: DatasetReader, scene: Scene, options: SceneOptions, remarks: Remarks) -> tuple[float, float]:
    declared = {(dataset.scales[band - 1], dataset.offsets[band - 1]) for band in scene.band_indexes}
    if options.scale is not None or options.offset is not None:
        wanted = (1.0 if options.scale is None else options.scale, 0.0 if options.offset is None else options.offset)
        if declared not in ({(1.0, 0.0)}, {wanted}):
            said = ", ".join(f"{scale:g} and {offset:g}" for scale, offset in sorted(declared))
            remarks.warnings.append(
                f"The file declares scale and offset {said}; {wanted[0]:g} and {wanted[1]:g} were given and count."
            )
        return wanted
    if len(declared) > 1:
        raise RasterRefused(
            f"{scene.uri} declares a scale or offset of its own for each band: make one of it with `gdal_translate "
            "-unscale -ot Float32`, or say which holds for all bands (--scale, --offset)."
        )
    ((scale, offset),) = declared
    if not (np.isfinite(scale) and np.isfinite(offset)) or scale == 0:
        raise RasterRefused(
            f"{scene.uri} declares scale {scale:g} and offset {offset:g}, which is not possible: say the right ones "
            "(--scale, --offset)."
        )
    if (scale, offset) != (1.0, 0.0):
        remarks.notes.append(
            f"Values are the stored numbers x {scale:g} + {offset:g}, as the file declares (scale = 1, offset = 0 "
            "reads the stored numbers)."
        )
    return scale, offset


def _alpha(
    dataset: DatasetReader, scene: Scene, options: SceneOptions, windows: list[tuple[Window, int]], remarks: Remarks
) -> str:
    """What the file's own mask is taken for: as was said, else validity, unless it is an alpha band over a picture."""
    bands = scene.band_indexes
    if not has_own_mask(dataset, bands):
        if ColorInterp.alpha in dataset.colorinterp:
            remarks.notes.append("The alpha band is not used: the file declares nodata.")
        return options.alpha or Scene.Alpha.VALIDITY
    if scene.nodata is not None or scene.mask_band is not None:
        return options.alpha or Scene.Alpha.VALIDITY
    what = "alpha band" if has_alpha(dataset, bands) else "mask"
    raw, shown = _pixels(dataset, bands, windows)
    hidden, picture = 1 - shown.mean(), hides_imagery(raw, shown)
    seems = f"The {what} hides {hidden:.1%} of the sampled pixels, and what it hides is a picture like the rest"
    if options.alpha == Scene.Alpha.IGNORED:
        remarks.notes.append(f"The {what} is ignored, as was said; it hides {hidden:.1%} of the sampled pixels.")
        return Scene.Alpha.IGNORED
    if picture and options.alpha is None and what == "alpha band":
        remarks.warnings.append(
            f"{seems}: it looks like a label mask and is ignored (alpha = validity takes it for validity)."
        )
        return Scene.Alpha.IGNORED
    if picture:
        remarks.warnings.append(f"{seems}; it is taken for validity (alpha = ignored reads what it hides).")
    else:
        remarks.notes.append(f"The {what} says what is valid; it hides {hidden:.1%} of the sampled pixels.")
    return Scene.Alpha.VALIDITY


def _pixels(
    dataset: DatasetReader, bands: Sequence[int], windows: list[tuple[Window, int]]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Stored numbers [C, N] of a sample, and whether the file's mask shows them [N]."""
    raw, shown = [], []
    for window, shrink in windows:
        shape = (max(1, int(window.height) // shrink), max(1, int(window.width) // shrink))
        options: dict[str, Any] = {"window": window, "resampling": Resampling.nearest}
        raw.append(dataset.read(bands, out_shape=(len(bands), *shape), **options).reshape(len(bands), -1))
        shown.append(dataset.read_masks(bands[0], out_shape=shape, **options).ravel() > 0)
    return np.concatenate(raw, axis=1), np.concatenate(shown)


def _valid_share(dataset: DatasetReader, scene: Scene, windows: list[tuple[Window, int]]) -> float:
    read = (read_window(dataset, scene, window, shrink)[0][0] for window, shrink in windows)
    return float(np.concatenate([~np.isnan(band).ravel() for band in read]).mean())


def _say_colors(dataset: DatasetReader, remarks: Remarks) -> None:
    if ColorInterp.palette in dataset.colorinterp:
        remarks.warnings.append(
            "The colour table is ignored, as was said: the stored numbers are read as measurements."
        )


def _say_orientation(dataset: DatasetReader, scene: Scene, remarks: Remarks) -> None:
    if "://" in scene.uri:
        return
    turned = declared_orientation(dataset, Path(scene.uri))
    if turned != 1:
        remarks.warnings.append(
            f"The file's EXIF orientation ({turned}) is not followed: its georeference refers to the pixels as stored."
        )
