"""Labels as GeoJSON and GeoPackage."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from thawloop.catalog.geometry import as_multipolygon, transformer
from thawloop.releases.exports.features import FIELDS, label_tables
from thawloop.releases.exports.tiles import add_tile_layer
from thawloop.releases.membership import frozen_pairs
from thawloop.releases.models import Release

# 1e-7 degrees are a centimetre.
COORDINATE_DECIMALS = 7


def write_geojson(release: Release, target: Path, dataset: Callable[[], Path]) -> None:
    """RFC 7946: EPSG:4326, exterior rings counterclockwise, cut at the antimeridian, one feature per line."""
    with target.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for table in label_tables(release, frozen_pairs(release)):
            turned = shapely.orient_polygons(table.shapes)
            rounded = shapely.to_geojson(shapely.transform(turned, lambda xy: xy.round(COORDINATE_DECIMALS)))
            for geometry, row in zip(rounded, table.rows(), strict=True):
                identity, attributes = json.dumps(row["label"]), json.dumps(row, ensure_ascii=False, allow_nan=False)
                file.write(
                    f'{separator}{{"type": "Feature", "id": {identity}, "geometry": {geometry}, '
                    f'"properties": {attributes}}}'
                )
                separator = ",\n"
        file.write("\n]}\n")


def write_gpkg(release: Release, target: Path, dataset: Callable[[], Path]) -> None:
    """In the release's grid CRS: `labels`, MultiPolygons that are whole across the antimeridian, and `tiles`."""
    import pyogrio.raw  # imported late: pyogrio brings pandas, two seconds that every process would pay

    srid = release.definition["grid"]["srid"]
    pairs = frozen_pairs(release)
    tables = list(label_tables(release, pairs))
    encoded = [shapely.to_wkb(_in_grid(table.shapes, srid)) for table in tables]
    pyogrio.raw.write(
        str(target),
        geometry=np.concatenate([np.zeros(0, dtype=object), *encoded]),
        field_data=[
            np.array(
                [value for table in tables for value in table.columns[name]], dtype=object if kind is str else kind
            )
            for name, kind in FIELDS.items()
        ],
        fields=list(FIELDS),
        layer="labels",
        driver="GPKG",
        geometry_type="MultiPolygon",
        crs=f"EPSG:{srid}",
    )
    add_tile_layer(release, target, pairs)


def _in_grid(shapes: NDArray[np.object_], srid: int) -> NDArray[np.object_]:
    """MultiPolygons [N] of EPSG:4326 in the grid's CRS."""
    move = transformer(4326, srid).transform
    moved: NDArray[np.object_] = shapely.transform(shapes, lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])))
    west, _, east, _ = shapely.bounds(shapes).T
    for index in np.flatnonzero((west <= -180 + 1e-9) & (east >= 180 - 1e-9)):
        # The two halves of a shape cut at ±180° meet along one line here: a millimetre closes it.
        closed = shapely.union_all(shapely.set_precision(list(moved[index].geoms), 1e-3))
        moved[index] = as_multipolygon(closed)
    return moved
