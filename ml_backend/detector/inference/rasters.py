"""Rasters outside any dataset: read as one chip, and answers written in the world's coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform_geom
from shapely.affinity import affine_transform

from ml_backend.detector.chips import ChipInput, chip_driver, read_chip, unreadable
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.errors import DatasetError
from ml_backend.detector.inference.results import Detection

PRECISION = 7  # decimals of degrees: a centimetre


@dataclass(frozen=True)
class Place:
    """Where a raster's pixels lie: from pixel corners (x, y) to coordinates in ``crs``."""

    transform: Affine
    crs: CRS


def read_stack(files: Mapping[str, Path], modalities: Sequence[ModalitySpec]) -> ChipInput:
    """Read co-registered rasters, one per modality, as one chip; modalities without a file are missing.

    Raises:
        DatasetError: a modality is unknown, a file cannot be read, or the files are not on one grid.
    """
    known = {modality.name: modality for modality in modalities}
    arrays, valid = {}, {}
    first, grid = None, None
    for name, file in files.items():
        if name not in known:
            raise DatasetError(
                f"{file} is given as '{name}', but the model takes {', '.join(known)}: name one of those."
            )
        arrays[name], valid[name] = read_chip(file, known[name])
        own = (valid[name].shape, place_of(file))
        if first is None:
            first, grid = file, own
        elif own != grid:
            raise DatasetError(f"{file} is not on the grid of {first}: resample all rasters to one grid.")
    return ChipInput(arrays, valid)


def place_of(file: Path) -> Place | None:
    """Where a raster lies; None when it does not say.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(file, driver=chip_driver(file)) as raster:
                return Place(raster.transform, raster.crs) if raster.crs else None
    except (RasterioError, OSError) as error:
        raise unreadable(file, error) from None


def feature_collection(found: Iterable[tuple[str, Place, Sequence[Detection]]]) -> dict[str, Any]:
    """Detections per tile (name, place) as GeoJSON (RFC 7946): EPSG:4326, holes kept, cut at the antimeridian."""
    features = [
        {
            "type": "Feature",
            "geometry": _geometry(detection, place),
            "properties": {
                "tile": name,
                "class": detection.class_name,
                "score": detection.score,
                "stage_scores": list(detection.stage_scores),
                "mask_entropy": detection.mask_entropy,
                "class_entropy": detection.class_entropy,
            },
        }
        for name, place, detections in found
        for detection in detections
        if detection.rings
    ]
    return {"type": "FeatureCollection", "features": features}


def _geometry(detection: Detection, place: Place) -> dict[str, Any]:
    pixels = shapely.Polygon(detection.rings[0], detection.rings[1:])
    there = shapely.geometry.mapping(affine_transform(pixels, place.transform.to_shapely()))
    world = transform_geom(place.crs, "EPSG:4326", there, antimeridian_cutting=True, precision=PRECISION)
    outward = shapely.orient_polygons(shapely.geometry.shape(world))
    geometry: dict[str, Any] = shapely.geometry.mapping(outward)
    return geometry
