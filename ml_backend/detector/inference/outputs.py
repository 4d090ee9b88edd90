"""Finds as files: JSON in pixels, GeoJSON and GeoPackage in the world's coordinates. Each is whole or not there."""

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

# Name of the tile, where it lies, and a find as `Detection.to_json` gives it.
LocatedDetection = tuple[str, Georeference, Mapping[str, Any]]


def write_json(file: Path, tiles: Iterable[tuple[Mapping[str, Any], Iterable[Mapping[str, Any]]]]) -> None:
    """``{"tiles": [...]}``: what is known of every tile, and its ``detections``.

    Raises:
        OSError: the disk refuses; it names the file itself.
    """
    with _draft(file) as draft, draft.open("w", encoding="utf-8") as stream:
        stream.write('{"tiles": [')
        for number, (tile, finds) in enumerate(tiles):
            head = json.dumps({**tile, "detections": []})
            stream.write((", " if number else "") + head[:-2])
            _write_list(stream, finds)
            stream.write("]}")
        stream.write("]}")


def write_geojson(file: Path, finds: Iterable[LocatedDetection]) -> None:
    """RFC 7946: EPSG:4326, holes kept, cut at the antimeridian.

    Raises:
        OSError: the disk refuses; it names the file itself.
    """
    with _draft(file) as draft, draft.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        _write_list(stream, features(finds))
        stream.write("]}")


def features(finds: Iterable[LocatedDetection]) -> Iterator[dict[str, Any]]:
    """Finds as GeoJSON features; a box that holds nothing is none."""
    for batch in _batches(find for find in finds if find[2]["rings"]):
        for (name, _, find), geometry in zip(batch, _geographic(batch), strict=True):
            yield {
                "type": "Feature",
                "geometry": shapely.geometry.mapping(geometry),
                "properties": {
                    "tile": name,
                    "class": find["class_name"],
                    **{key: find[key] for key in ("score", "probability", "stage_scores")},
                    **{key: find[key] for key in ("mask_entropy", "class_entropy")},
                },
            }


def write_geopackage(file: Path, finds: Iterable[LocatedDetection], crs: CRS) -> None:
    """One layer, :data:`LAYER`, of multipolygons.

    Args:
        file: to be written.
        finds: all in ``crs``, unless that is EPSG:4326, into which they are then brought.
        crs: of the layer.

    Raises:
        OSError: the disk refuses; it names the file itself.
    """
    import pyogrio.errors  # imported late: it brings pandas
    import pyogrio.raw

    with _draft(file) as draft:
        for number, batch in enumerate(chain(_batches(find for find in finds if find[2]["rings"]), [[]])):
            if number and not batch:
                break
            shapes = _geographic(batch) if crs == GEOGRAPHIC else [_placed(place, find) for _, place, find in batch]
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


def _columns(finds: list[LocatedDetection]) -> dict[str, Any]:
    stages = np.array([find["stage_scores"] for _, _, find in finds], dtype=float).reshape(-1, STAGES)
    numbers = {
        name: np.array([find[name] for _, _, find in finds], dtype=float)  # an unknown probability is null
        for name in ("score", "probability", "mask_entropy", "class_entropy")
    }
    return {
        "tile": np.array([name for name, _, _ in finds], dtype=object),
        "class": np.array([find["class_name"] for _, _, find in finds], dtype=object),
        **numbers,
        **{f"stage_{number + 1}": stages[:, number] for number in range(stages.shape[1])},
    }


def _placed(georeference: Georeference, find: Mapping[str, Any]) -> Any:
    """A find's polygon in its tile's CRS."""
    pixels = shapely.Polygon(find["rings"][0], find["rings"][1:])
    return affine_transform(pixels, georeference.transform.to_shapely())


def _geographic(batch: list[LocatedDetection]) -> list[Any]:
    """Finds in EPSG:4326, cut at the antimeridian, rings turning as RFC 7946 wants."""
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


def _batches(finds: Iterable[LocatedDetection]) -> Iterator[list[LocatedDetection]]:
    remaining = iter(finds)
    while batch := list(islice(remaining, AT_ONCE)):
        yield batch


def _write_list(stream: IO[str], items: Iterable[Mapping[str, Any]]) -> None:
    for number, item in enumerate(items):
        stream.write((",\n" if number else "\n") + json.dumps(item))


@contextmanager
def _draft(file: Path) -> Iterator[Path]:
    """A file beside it that takes its place when all went well."""
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
