"""A vector file as one area: what a region's file is read as."""

from pathlib import Path

from shapely.geometry import MultiPolygon

from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.vectors.mending import Mender, TooCostly
from thawloop.catalog.vectors.reading import read_vector_file
from thawloop.core.storage import checked_uri


def read_area(path: Path, *, layer: str | None = None, crs: str | None = None) -> MultiPolygon:
    """All polygons of a file below the data roots as one area in EPSG:4326.

    Raises:
        VectorFileRefused: It cannot be read, holds no polygon, or one that cannot be used: a study area that lost a
            part would be another one.
    """
    checked = checked_uri(str(path))
    if checked.startswith("/vsi"):
        raise VectorFileRefused(f"{path}: vector files are read from folders, not from s3://: copy it to one first.")
    source = read_vector_file(Path(checked), layer=layer, crs=crs)
    # Points and lines may lie beside a study area.
    if broken := [feature for feature in source.features if feature.polygons is None and feature.has_polygon]:
        raise VectorFileRefused(f"{path}: feature {broken[0].id} {broken[0].refused}.")
    shapes = [feature.polygons for feature in source.features if feature.polygons is not None]
    if not shapes:
        raise VectorFileRefused(f"{path} holds no polygon: a region is made of polygons.")
    try:
        return Mender().unite(shapes)
    except TooCostly as error:
        raise VectorFileRefused(f"{path}: uniting its polygons {error}: simplify them.") from error
