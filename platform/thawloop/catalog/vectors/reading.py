"""Read a vector file into features: geometry as the file has it, attributes as JSON."""

import codecs
import contextlib
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.vectors.staging import staged
from thawloop.catalog.vectors.table import read_table

MAX_FEATURES = 1_000_000
MAX_TEXT = 2_000
DRIVERS = {"GeoJSON", "GPKG", "ESRI Shapefile", "KML", "LIBKML", "FlatGeobuf", "MapInfo File"}
# GDAL names these where a GeoPackage says that it does not know its CRS.
UNDEFINED_CRS = ("Undefined geographic SRS", "Undefined Cartesian SRS", "Undefined SRS", "unnamed")


@dataclass(frozen=True)
class Feature:
    """One record of a file.

    Attributes:
        id: The feature's id in the file (FID, or line number of a table).
        geometry: In the file's CRS; None where it is NULL or unreadable.
        problem: Why the geometry is None, in words; empty otherwise.
        properties: Attributes that JSON can hold.
    """

    id: str
    geometry: BaseGeometry | None
    properties: dict[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class VectorFile:
    """A file's features and the CRS it names (WKT or `AUTHORITY:code`; None if it names none)."""

    name: str
    crs: str | None
    features: Sequence[Feature]


def read_vector_file(path: Path, *, max_bytes: int, layer: str | None = None) -> VectorFile:
    """Read every feature of one layer of a label file.

    Raises:
        VectorFileRefused: The file cannot be read, or it has several layers and none is chosen.
    """
    with staged(path, max_bytes=max_bytes, layer=layer) as file:
        if file.suffix == ".csv" or (file.suffix == ".tab" and not _is_mapinfo(file)):
            crs, rows = read_table(file, path.name)
            return VectorFile(path.name, crs, [Feature(*row) for row in rows])
        return _read_gdal(file, path.name, layer)


def _is_mapinfo(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16).lower().startswith(b"!table")


def _read_gdal(file: Path, name: str, layer: str | None) -> VectorFile:
    import pyogrio.errors  # imported late: pyogrio brings pandas, two seconds that every process would pay

    try:
        with warnings.catch_warnings():
            # What GDAL warns of (unclosed rings, M values) is seen again, and reported, when geometries are cleaned.
            warnings.simplefilter("ignore")
            chosen = _choose_layer(file, name, layer)
            meta, fids, wkb, columns = _read_layer(file, name, chosen)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        reason = str(error).replace(str(file), name).rstrip(".")
        raise VectorFileRefused(f"{name} cannot be read ({reason}): open it in QGIS and save it again.") from error
    except pyogrio.errors.GeometryError as error:
        raise VectorFileRefused(f"{name} holds geometries that are no simple features ({error}).") from error
    crs = meta["crs"]
    if crs and any(f'"{text}"' in crs for text in UNDEFINED_CRS):
        crs = None
    fields = [mend_text(str(field)) for field in meta["fields"]]
    features = []
    for row, fid in enumerate(fids):
        geometry, problem = decode(wkb[row] if wkb is not None else None)
        properties = {field: json_value(column[row]) for field, column in zip(fields, columns, strict=True)}
        features.append(Feature(str(fid), geometry, properties, problem))
    return VectorFile(name, crs, features)


def _choose_layer(file: Path, name: str, layer: str | None) -> str:
    import pyogrio

    layers = [str(row[0]) for row in pyogrio.list_layers(file)]
    if not layers:
        raise VectorFileRefused(f"{name} has no layer: nothing to import.")
    if len(layers) == 1:
        return layers[0]
    if layer in layers:
        return layer
    known = ", ".join(layers[:12])
    if layer:
        raise VectorFileRefused(f"{name} has no layer `{layer}`: it has {known}.")
    raise VectorFileRefused(f"{name} has {len(layers)} layers ({known}): choose one with --layer NAME.")


def _read_layer(file: Path, name: str, layer: str) -> tuple[dict[str, Any], Any, Any, list[Any]]:
    declared = _declared_encoding(file)
    try:
        return _read_encoded(file, name, layer, {"encoding": declared} if declared else {})
    except UnicodeDecodeError:
        # Latin 1 gives every byte a letter: a wrong accent beats an unreadable inventory.
        return _read_encoded(file, name, layer, {"encoding": "ISO-8859-1"})


def _declared_encoding(file: Path) -> str | None:
    """The Python codec that a shapefile's .cpg names; GDAL's wheel cannot recode most of them."""
    cpg = file.with_suffix(".cpg")
    if not cpg.exists():
        return None
    text = cpg.read_text("ascii", errors="ignore").strip()[:40]
    iso = re.sub(r"(?i)^iso[\s_-]*8859[\s_-]*", "iso8859-", text)
    for candidate in (text, iso, f"cp{text}", text.upper().replace("ANSI ", "cp")):
        with contextlib.suppress(LookupError):
            return codecs.lookup(candidate).name
    return None


def _read_encoded(
    file: Path, name: str, layer: str, options: dict[str, Any]
) -> tuple[dict[str, Any], Any, Any, list[Any]]:
    import pyogrio.raw

    if file.suffix in (".geojson", ".json"):
        options["ARRAY_AS_STRING"] = "YES"
    info = pyogrio.read_info(file, layer=layer, force_feature_count=True, **options)
    if info["driver"] not in DRIVERS:
        raise VectorFileRefused(f"{name} is read as {info['driver']}, which is no label format: save it as GeoPackage.")
    if info["features"] > MAX_FEATURES:
        raise VectorFileRefused(f"{name} has {info['features']:,} features, more than {MAX_FEATURES:,}: split it.")
    columns = [
        str(field) for field, kind in zip(info["fields"], info["dtypes"], strict=True) if "list" not in str(kind)
    ]
    return pyogrio.raw.read(  # type: ignore[no-any-return]
        file, layer=layer, columns=columns, return_fids=True, datetime_as_string=True, **options
    )


def decode(wkb: bytes | None) -> tuple[BaseGeometry | None, str]:
    """Geometry from WKB, closing unclosed rings; or None and why."""
    if wkb is None:
        return None, "has no geometry"
    try:
        geometry = shapely.from_wkb(wkb, on_invalid="fix")
    except shapely.errors.GEOSException as error:
        return None, f"has a broken geometry ({error})"
    if geometry is None:
        return None, "has a broken geometry (a ring with too few points, or a surface type that is no polygon)"
    return geometry, ""


def mend_text(text: str) -> str:
    """UTF-8 that was read as Latin 1, as text again; a letter cut in half at the end (10-byte names) is dropped."""
    try:
        raw = text.encode("iso-8859-1")
        return raw.decode("utf-8")
    except UnicodeEncodeError:
        return text
    except UnicodeDecodeError as error:
        return raw[: error.start].decode("utf-8") if error.end >= len(raw) and error.start > 0 else text


def json_value(value: Any) -> Any:
    """An attribute as JSON and PostgreSQL can hold it: NaN is null, dates and bytes are text, NUL is dropped."""
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value[:MAX_TEXT].hex()
    return mend_text(str(value)).replace("\x00", "")[:MAX_TEXT]
