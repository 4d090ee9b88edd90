"""Labels as GeoJSON and GeoPackage."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, mapping

from thawloop.catalog.geometry import as_multipolygon, project
from thawloop.releases.exports.features import FIELDS, label_features
from thawloop.releases.exports.tiles import add_tile_layer
from thawloop.releases.models import Release

# 1e-7 degrees are a centimetre.
COORDINATE_DECIMALS = 7


def write_geojson(release: Release, target: Path, dataset: Callable[[], Path]) -> None:
    """RFC 7946: EPSG:4326, exterior rings counterclockwise, cut at the antimeridian, one feature per line."""
    with target.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for feature in label_features(release):
            shape = as_multipolygon(shapely.orient_polygons(feature.geometry))
            geometry = {"type": "MultiPolygon", "coordinates": _rounded(shape)}
            row = {
                "type": "Feature",
                "id": feature.attributes["label"],
                "geometry": geometry,
                "properties": feature.attributes,
            }
            file.write(separator + json.dumps(row, ensure_ascii=False, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")


def _rounded(shape: MultiPolygon) -> list[list[list[list[float]]]]:
    return [
        [[[round(x, COORDINATE_DECIMALS), round(y, COORDINATE_DECIMALS)] for x, y in ring] for ring in polygon]
        for polygon in mapping(shape)["coordinates"]
    ]


def write_gpkg(release: Release, target: Path, dataset: Callable[[], Path]) -> None:
    """In the release's grid CRS: `labels`, MultiPolygons that are whole across the antimeridian, and `tiles`."""
    import pyogrio.raw  # imported late: pyogrio brings pandas, two seconds that every process would pay

    srid = release.definition["grid"]["srid"]
    features = list(label_features(release))
    shapes = [_in_grid(as_multipolygon(feature.geometry), srid) for feature in features]
    columns: list[np.ndarray] = [
        np.array([feature.attributes[name] for feature in features], dtype=object if kind is str else kind)
        for name, kind in FIELDS.items()
    ]
    pyogrio.raw.write(
        str(target),
        geometry=np.array([shapely.to_wkb(shape) for shape in shapes], dtype=object),
        field_data=columns,
        fields=list(FIELDS),
        layer="labels",
        driver="GPKG",
        geometry_type="MultiPolygon",
        crs=f"EPSG:{srid}",
    )
    add_tile_layer(release, target)


def _in_grid(shape: MultiPolygon, srid: int) -> MultiPolygon:
    moved = project(shape, 4326, srid)
    west, _, east, _ = shape.bounds
    if west <= -180 + 1e-9 and east >= 180 - 1e-9:
        # The two halves of a shape cut at ±180° meet along one line here: a millimetre closes it.
        moved = shapely.union_all(shapely.set_precision(list(moved.geoms), 1e-3))
    return as_multipolygon(moved)
