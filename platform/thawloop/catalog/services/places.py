"""Defining tile grids and regions."""

from django.contrib.gis.geos import GEOSGeometry
from django.db import transaction
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.errors import AlreadyDefined, DefinitionRefused
from thawloop.catalog.geometry import as_multipolygon, multipolygon_to_geos, to_shapely
from thawloop.catalog.models import Region, TileGrid
from thawloop.catalog.services.defining import check_identical, create
from thawloop.catalog.vectors.mending import Mender, TooCostly
from thawloop.catalog.wrapping import wrap_longitudes


@transaction.atomic
def define_grid(name: str, srid: int, pixel_size: float, tile_size: int, overlap: int = 0) -> TileGrid:
    """Create a tile grid, or return the one of that name if it is defined exactly so.

    Args:
        name: Lower-case name; it begins the key of every tile.
        srid: EPSG code of a projected CRS in metres.
        pixel_size: Metres.
        tile_size: Pixels.
        overlap: Pixels shared by neighbouring tiles.

    Raises:
        DefinitionRefused: The CRS is unknown, geographic or not in metres, or a number is out of range.
        AlreadyDefined: The name is taken by another grid, or the same grid has another name.
    """
    fields = {"srid": srid, "pixel_size": float(pixel_size), "tile_size": tile_size, "overlap": overlap}
    existing = TileGrid.objects.filter(name=name).first()
    if existing is not None:
        check_identical(existing, fields)
        return existing
    _check_crs(srid)
    twin = TileGrid.objects.filter(**fields).first()
    if twin is not None:
        raise AlreadyDefined(f"This grid is already defined under the name `{twin.name}`: use that.")
    if overlap >= tile_size:
        raise DefinitionRefused(
            f"Grid `{name}`: overlap ({overlap} px) must be smaller than the tile ({tile_size} px)."
        )
    return create(TileGrid(name=name, **fields), "catalog.define_grid", fields)


def _check_crs(srid: int) -> None:
    try:
        crs = CRS.from_epsg(srid)
    except CRSError as error:
        raise DefinitionRefused(f"EPSG:{srid} is not a known coordinate reference system.") from error
    units = {axis.unit_name for axis in crs.axis_info}
    if not crs.is_projected or units != {"metre"}:
        kind = "projected" if crs.is_projected else "geographic"
        raise DefinitionRefused(
            f"EPSG:{srid} ({crs.name}) is {kind} with axes in {', '.join(sorted(units))}; a grid needs a "
            "projected CRS in metres, e.g. EPSG:3413 (polar stereographic) or a UTM zone."
        )


@transaction.atomic
def define_region(
    name: str, geometry: GEOSGeometry | BaseGeometry, title: str = "", parent: Region | None = None
) -> Region:
    """Create a region, or return the one of that name if it has the same geometry.

    Args:
        name: Lower-case name.
        geometry: Polygon or MultiPolygon in EPSG:4326. Longitudes beyond ±180 degrees are wrapped and split.
        title: What people read; the name if empty.
        parent: The region this one is a part of.

    Raises:
        DefinitionRefused: The geometry is not a valid polygon on the globe.
        AlreadyDefined: The name is taken by a region of another geometry.
    """
    shape = normalised_region(name, geometry)
    existing = Region.objects.filter(name=name).first()
    if existing is not None:
        if not to_shapely(existing.geometry).equals(shape):
            raise AlreadyDefined(f"Region `{name}` is already defined with another outline: choose another name.")
        return existing
    region = Region(name=name, title=title, geometry=multipolygon_to_geos(shape), parent=parent)
    west, south, east, north = shape.bounds
    after = {"title": title, "bounds": [west, south, east, north], "parent": parent.name if parent else None}
    return create(region, "catalog.define_region", after)


def normalised_region(name: str, geometry: GEOSGeometry | BaseGeometry) -> MultiPolygon:
    """A region's outline as it is stored: valid, two-dimensional, within ±180 degrees."""
    if isinstance(geometry, GEOSGeometry) and geometry.srid not in (None, 4326):
        raise DefinitionRefused(f"Region `{name}` must be given in EPSG:4326, not EPSG:{geometry.srid}.")
    shape = to_shapely(geometry)
    if shape.is_empty or shape.geom_type not in ("Polygon", "MultiPolygon"):
        found = "empty" if shape.is_empty else f"a {shape.geom_type}"
        raise DefinitionRefused(f"Region `{name}` must be a Polygon or MultiPolygon; what was given is {found}.")
    try:
        invalid = Mender().invalid_reason(shape)
    except TooCostly as error:
        raise DefinitionRefused(f"The outline of region `{name}` {error}: simplify it.") from error
    if invalid:
        raise DefinitionRefused(f"The outline of region `{name}` is not valid: {invalid}.")
    west, south, east, north = shape.bounds
    if west < -360.0 or east > 360.0 or south < -90.0 or north > 90.0:
        raise DefinitionRefused(
            f"Region `{name}` lies outside the globe (longitudes {west:g} to {east:g}, latitudes {south:g} to "
            f"{north:g}): give longitude and latitude in degrees (EPSG:4326), not projected metres."
        )
    return as_multipolygon(wrap_longitudes(shape, jumps=False))
