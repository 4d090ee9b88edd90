"""A release's tiles: what has been labelled; a tile without labels is a true negative."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from django.db import connection
from numpy.typing import NDArray
from shapely.geometry import mapping

from thawloop.catalog.geometry import as_multipolygon, transformer
from thawloop.releases.exports.features import safe_text
from thawloop.releases.membership import Pairs, frozen_pairs
from thawloop.releases.models import Release

LAYER = "tiles"
FIELDS: dict[str, type] = {"tile": str, "region": str, "split": str, "labels": int, "labelled_by": str, "release": str}
_TILES = """
    SELECT tile.id, tile.key, region.name, held.split,
        CASE WHEN held.annotation_id IS NULL THEN 'import' ELSE 'annotator' END, ST_AsBinary(ST_Force2D(tile.geometry))
    FROM releases_releasetile AS held
    JOIN catalog_tile AS tile ON tile.id = held.tile_id
    JOIN catalog_region AS region ON region.id = tile.region_id
    WHERE held.release_id = %s ORDER BY tile.key
"""


def tile_table(release: Release, pairs: Pairs) -> tuple[NDArray[np.object_], dict[str, Sequence[Any]]]:
    """Every tile of a release, by key; `pairs`: which revisions are on which tiles.

    Returns:
        Outlines [N] in EPSG:4326, and N values of each of `FIELDS`; `labels` = 0 is a true negative.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TILES, [release.pk])
        rows = cursor.fetchall()
    tiles, keys, regions, splits, sources, wkb = zip(*rows, strict=True) if rows else ((),) * 6
    names = {name: safe_text(name) for name in set(regions)}
    labels = pairs.on_each(tiles)
    named = [f"{release.campaign.name} {release.version}"] * len(rows)
    values = (keys, [names[name] for name in regions], splits, labels, sources, named)
    shapes: NDArray[np.object_] = shapely.from_wkb(np.array([bytes(one) for one in wkb], dtype=object))
    return shapes, dict(zip(FIELDS, values, strict=True))


def write_tiles(release: Release, target: Path, dataset: Callable[[], Path]) -> None:
    """GeoJSON (RFC 7946) of the tiles, one per line."""
    shapes, columns = tile_table(release, frozen_pairs(release))
    with target.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for shape, *values in zip(shapes, *columns.values(), strict=True):
            attributes = dict(zip(columns, values, strict=True))
            row = {
                "type": "Feature",
                "id": attributes["tile"],
                "geometry": mapping(shapely.orient_polygons(as_multipolygon(shape))),
                "properties": attributes,
            }
            file.write(separator + json.dumps(row, ensure_ascii=False, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")


def add_tile_layer(release: Release, target: Path, pairs: Pairs) -> None:
    """Add the layer `tiles`, in the release's grid CRS, to a GeoPackage; `pairs` as for `tile_table`."""
    import pyogrio.raw  # imported late: pyogrio brings pandas, two seconds that every process would pay

    srid = release.definition["grid"]["srid"]
    shapes, columns = tile_table(release, pairs)
    move = transformer(4326, srid).transform
    moved = shapely.transform(shapes, lambda xy: np.column_stack(move(xy[:, 0], xy[:, 1])))
    pyogrio.raw.write(
        str(target),
        geometry=shapely.to_wkb(shapely.convex_hull(moved)),  # tiles are squares
        field_data=[np.array(columns[name], dtype=object if kind is str else kind) for name, kind in FIELDS.items()],
        fields=list(FIELDS),
        layer=LAYER,
        driver="GPKG",
        geometry_type="Polygon",
        crs=f"EPSG:{srid}",
        append=True,
    )
