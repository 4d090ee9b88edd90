"""Writing detections: JSON in pixels, GeoJSON and GeoPackage in map coordinates. Files are written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform_geom
from shapely.affinity import affine_transform

from ml_backend.detector.inference.rasters import Georeference

GEOGRAPHIC = CRS.from_epsg(4326)
PRECISION = 7  # decimals of degrees: a centimetre
AT_ONCE = 1000
LAYER = "finds"
STAGES = 3  # of the cascade

# name of the tile, its georeference, and a detection as returned by `Detection.to_json`
LocatedDetection = tuple[str, Georeference, Mapping[str, Any]]


def write_json(file: Path, tiles: Iterable[tuple[Mapping[str, Any], Iterable[Mapping[str, Any]]]]) -> None:
    """Write ``{"tiles": [...]}``: the given entries of every tile, and its ``detections``.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    with _draft(file) as draft, draft.open("w", encoding="utf-8") as stream:
        stream.write('{"tiles": [')
        for number, (tile, detections) in enumerate(tiles):
            head = json.dumps({**tile, "detections": []})
            stream.write((", " if number else "") + head[:-2])
            _write_list(stream, detections)
            stream.write("]}")
        stream.write("]}")


def write_geojson(file: Path, detections: Iterable[LocatedDetection]) -> None:
    """Write GeoJSON (RFC 7946): EPSG:4326, with holes, cut at the antimeridian.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    with _draft(file) as draft, draft.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        _write_list(stream, features(detections))
        stream.write("]}")


def features(detections: Iterable[LocatedDetection]) -> Iterator[dict[str, Any]]:
    """Detections as GeoJSON features, without those that have no outline."""
    for batch in _batches(detection for detection in detections if detection[2]["rings"]):
        for (name, _, detection), geometry in zip(batch, _geographic(batch), strict=True):
            yield {
                "type": "Feature",
                "geometry": shapely.geometry.mapping(geometry),
                "properties": {
                    "tile": name,
                    "class": detection["class_name"],
                    **{key: detection[key] for key in ("score", "probability", "stage_scores")},
                    **{key: detection[key] for key in ("mask_entropy", "class_entropy")},
                },
            }


def write_geopackage(file: Path, detections: Iterable[LocatedDetection], crs: CRS) -> None:
    """Write a GeoPackage with one layer, :data:`LAYER`, of multipolygons.

    Args:
        file: to be written.
        detections: all in ``crs``; if that is EPSG:4326, in any CRS, to be transformed.
        crs: of the layer.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    import pyogrio.errors  # imported late: it brings pandas
    import pyogrio.raw

    with _draft(file) as draft:
        for number, batch in enumerate(
            chain(_batches(detection for detection in detections if detection[2]["rings"]), [[]])
        ):
            if number and not batch:
                break
            shapes = (
                _geographic(batch)
                if crs == GEOGRAPHIC
                else [_placed(place, detection) for _, place, detection in batch]
            )
            many = np.array([shapely.MultiPolygon(shapely.get_parts(shape).tolist()) for shape in shapes], dtype=object)
            columns = _columns(batch)
            try:
                pyogrio.raw.write(
                    draft,
                    np.array(shapely.to_wkb(many), dtype=object),
                    list(columns.values()),
                    list(columns),
                    layer=LAYER,
                    driver="GPKG",
                    geometry_type="MultiPolygon",
                    crs=crs.to_wkt(),
                    append=number > 0,
                )
            except (
                pyogrio.errors.DataSourceError,
                pyogrio.errors.DataLayerError,
                pyogrio.errors.FeatureError,
            ) as error:
                raise OSError(5, str(error).splitlines()[0], str(file)) from None


def _columns(detections: list[LocatedDetection]) -> dict[str, Any]:
    stages = np.array([detection["stage_scores"] for _, _, detection in detections], dtype=float).reshape(-1, STAGES)
    numbers = {
        name: np.array(
            [detection[name] for _, _, detection in detections], dtype=float
        )  # an unknown probability is null
        for name in ("score", "probability", "mask_entropy", "class_entropy")
    }
    return {
        "tile": np.array([name for name, _, _ in detections], dtype=object),
        "class": np.array([detection["class_name"] for _, _, detection in detections], dtype=object),
        **numbers,
        **{f"stage_{number + 1}": stages[:, number] for number in range(stages.shape[1])},
    }


def _placed(georeference: Georeference, detection: Mapping[str, Any]) -> Any:
    """A detection's polygon in the CRS of its tile."""
    pixels = shapely.Polygon(detection["rings"][0], detection["rings"][1:])
    return affine_transform(pixels, georeference.transform.to_shapely())


def _geographic(batch: list[LocatedDetection]) -> list[Any]:
    """Detections in EPSG:4326, cut at the antimeridian, with rings oriented as in RFC 7946."""
    shapes: list[Any] = [None] * len(batch)
    by_crs: dict[CRS, list[int]] = {}
    for index, (_, place, _) in enumerate(batch):
        by_crs.setdefault(place.crs, []).append(index)
    for crs, indices in by_crs.items():
        there = [shapely.geometry.mapping(_placed(batch[index][1], batch[index][2])) for index in indices]
        world = transform_geom(crs, GEOGRAPHIC, there, antimeridian_cutting=True, precision=PRECISION)
        for index, geometry in zip(indices, world, strict=True):
            shapes[index] = shapely.orient_polygons(shapely.geometry.shape(geometry))
    return shapes


def _batches(detections: Iterable[LocatedDetection]) -> Iterator[list[LocatedDetection]]:
    remaining = iter(detections)
    while batch := list(islice(remaining, AT_ONCE)):
        yield batch


def _write_list(stream: IO[str], items: Iterable[Mapping[str, Any]]) -> None:
    for number, item in enumerate(items):
        stream.write((",\n" if number else "\n") + json.dumps(item))


@contextmanager
def _draft(file: Path) -> Iterator[Path]:
    """A temporary file next to ``file``, which replaces it on success."""
    draft = file.with_name(f".draft-{file.name}")
    try:
        draft.unlink(missing_ok=True)
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from None
    finally:
        for left in (draft, draft.with_name(draft.name + "-journal"), draft.with_name(draft.name + "-wal")):
            left.unlink(missing_ok=True)
