"""A release's tiles: where people looked, and so where there is nothing if no label says otherwise."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.geometry import as_multipolygon, project, to_shapely
from thawloop.releases.exports.features import safe_text
from thawloop.releases.membership import frozen_members, frozen_revisions_on
from thawloop.releases.models import Release

LAYER = "tiles"
FIELDS: dict[str, type] = {"tile": str, "region": str, "split": str, "labels": int, "labelled_by": str, "release": str}
BATCH = 1_000


@dataclass(frozen=True)
class TileFeature:
    """A tile of a release: outline in EPSG:4326, attributes named by `FIELDS`; `labels` = 0 is a true negative."""

    geometry: BaseGeometry
    attributes: dict[str, Any]


def tile_features(release: Release, on_tiles: Mapping[int, set[int]]) -> Iterator[TileFeature]:
    """Every tile of a release, by key; `on_tiles`: tile id to the revision ids on it."""
    rows = release.release_tiles.select_related("tile__region").order_by("tile__key")
    for row in rows.defer("tile__region__geometry").iterator(chunk_size=BATCH):
        attributes = {
            "tile": row.tile.key,
            "region": safe_text(row.tile.region.name),
            "split": row.split,
            "labels": len(on_tiles.get(row.tile_id, ())),
            "labelled_by": "annotator" if row.annotation_id else "import",
            "release": f"{release.campaign.name} {release.version}",
        }
        yield TileFeature(to_shapely(row.tile.geometry), attributes)


def write_tiles(release: Release, target: Path, dataset: Callable[[], Path]) -> None:
    """GeoJSON (RFC 7946) of the tiles, one per line."""
    with target.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for feature in tile_features(release, frozen_revisions_on(release, frozen_members(release).tiles)):
            shape = shapely.orient_polygons(as_multipolygon(feature.geometry))
            row = {
                "type": "Feature",
                "id": feature.attributes["tile"],
                "geometry": mapping(shape),
                "properties": feature.attributes,
            }
            file.write(separator + json.dumps(row, ensure_ascii=False, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")


def add_tile_layer(release: Release, target: Path, on_tiles: Mapping[int, set[int]]) -> None:
    """Add the layer `tiles`, in the release's grid CRS, to a GeoPackage; `on_tiles` as for `tile_features`."""
    import pyogrio.raw  # imported late: pyogrio brings pandas, two seconds that every process would pay

    srid = release.definition["grid"]["srid"]
    features = list(tile_features(release, on_tiles))
    shapes = [shapely.convex_hull(project(feature.geometry, 4326, srid)) for feature in features]  # tiles are squares
    pyogrio.raw.write(
        str(target),
        geometry=shapely.to_wkb(np.array(shapes, dtype=object)),
        field_data=[
            np.array([feature.attributes[name] for feature in features], dtype=object if kind is str else kind)
            for name, kind in FIELDS.items()
        ],
        fields=list(FIELDS),
        layer=LAYER,
        driver="GPKG",
        geometry_type="Polygon",
        crs=f"EPSG:{srid}",
        append=True,
    )
