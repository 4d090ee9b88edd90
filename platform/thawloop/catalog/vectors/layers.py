"""Open a staged vector file and take its features out: geometry as the file has it, attributes as JSON."""

import codecs
import contextlib
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.vectors.table import MAX_TEXT, NO_GEOMETRY, Row, read_table

MAX_FEATURES = 1_000_000
IN_CAMPAIGN = " (in a campaign file `layer`)"
DRIVERS = {"GeoJSON", "GPKG", "ESRI Shapefile", "KML", "LIBKML", "FlatGeobuf", "MapInfo File"}
# GDAL names these where a GeoPackage says that it does not know its CRS.
UNDEFINED_CRS = ("Undefined geographic SRS", "Undefined Cartesian SRS", "Undefined SRS", "unnamed")


CHUNK = 200_000


@dataclass(frozen=True)
class RawFeature:
    """One record of a file, its geometry not yet looked at.

    Attributes:
        id: The feature's id in the file (FID, or line number of a table).
        geometry: WKB or WKT in the file's CRS; None where there is none.
        problem: Why the geometry is None, in words; empty otherwise.
        properties: Attributes that JSON can hold.
    """

    id: str
    geometry: bytes | str | None
    properties: dict[str, Any]
    problem: str = ""


class Layer(Protocol):
    """One layer of an open file.

    Attributes:
        name: Of the layer; empty where the format has none.
        crs: WKT or `AUTHORITY:code`; None if the file names none.
        fields: Names of the attributes.
    """

    name: str
    crs: str | None
    fields: list[str]

    def batches(self, start: int, size: int) -> Iterator[list[RawFeature]]:
        """The features from number `start` (0 is the first), `size` at a time."""


def open_layer(file: Path, name: str, layer: str | None) -> Layer:
    """Open one layer of a staged file, of which people know the `name`.

    Raises:
        VectorFileRefused: The file cannot be read, or it has several layers and none is chosen.
    """
    if file.suffix == ".csv" or (file.suffix == ".tab" and not _is_mapinfo(file)):
        return Table(*read_table(file, name))
    return GdalLayer(file, name, layer)


@dataclass
class Table:
    """Text with one feature a line."""

    crs: str | None
    fields: list[str]
    rows: list[Row]
    name: str = ""

    def batches(self, start: int, size: int) -> Iterator[list[RawFeature]]:
        for first in range(start, len(self.rows), size):
            yield [RawFeature(*row) for row in self.rows[first : first + size]]


class GdalLayer:
    """A layer that GDAL reads, in chunks of bounded memory."""

    def __init__(self, file: Path, name: str, layer: str | None) -> None:
        self._file, self._name = file, name
        with self._explained():
            self.name = _choose_layer(file, name, layer)
            self._options = _options(file)
            self._info = _info(file, name, self.name, self._options)
        crs = self._info["crs"]
        self.crs = None if crs and any(f'"{text}"' in crs for text in UNDEFINED_CRS) else crs
        self.fields = [mend_text(str(field)) for field in self._info["fields"]]

    def batches(self, start: int, size: int) -> Iterator[list[RawFeature]]:
        for skip in range(start, self._info["features"], CHUNK):
            chunk = self._read(skip)
            for first in range(0, len(chunk), size):
                yield chunk[first : first + size]

    def _read(self, skip: int) -> list[RawFeature]:
        with self._explained():
            meta, fids, wkb, columns = _read_layer(
                self._file, self.name, self._info, self._options, skip_features=skip, max_features=CHUNK
            )
        fields = [mend_text(str(field)) for field in meta["fields"]]
        values = [[json_value(value) for value in column] for column in columns]
        rows = zip(*values, strict=True) if values else iter([()] * len(fids))
        shapes = [None] * len(fids) if wkb is None else wkb
        return [
            RawFeature(str(fid), shape, dict(zip(fields, row, strict=True)), "" if shape is not None else NO_GEOMETRY)
            for fid, shape, row in zip(fids, shapes, rows, strict=True)
        ]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Make sentences of GDAL's errors."""
        import pyogrio.errors

        try:
            with warnings.catch_warnings():
                # What GDAL warns of (unclosed rings, M values) is seen again when geometries are cleaned.
                warnings.simplefilter("ignore")
                yield
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
            reason = str(error).replace(str(self._file), self._name).rstrip(".")
            raise VectorFileRefused(
                f"{self._name} cannot be read ({reason}): open it in QGIS and save it again."
            ) from error
        except pyogrio.errors.GeometryError as error:
            raise VectorFileRefused(f"{self._name} holds geometries that are not simple features ({error}).") from error


def _is_mapinfo(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16).lower().startswith(b"!table")


def _choose_layer(file: Path, name: str, layer: str | None) -> str:
    import pyogrio

    layers = [str(row[0]) for row in pyogrio.list_layers(file)]
    if not layers:
        raise VectorFileRefused(f"{name} has no layer: nothing to import.")
    if layer in layers:
        return layer
    if len(layers) == 1:
        if layer and layer != Path(name).stem:  # what formats without named layers call theirs
            raise VectorFileRefused(f"{name} has one layer, which is not called `{layer}`: leave the layer out.")
        return layers[0]
    known = ", ".join(layers[:12])
    if layer:
        raise VectorFileRefused(f"{name} has no layer `{layer}`: it has {known}.")
    raise VectorFileRefused(f"{name} has {len(layers)} layers ({known}): choose one with --layer NAME{IN_CAMPAIGN}.")


def _options(file: Path) -> dict[str, Any]:
    declared = _declared_encoding(file)
    options: dict[str, Any] = {"encoding": declared} if declared else {}
    if file.suffix in (".geojson", ".json"):
        options["ARRAY_AS_STRING"] = "YES"
    return options


def _info(file: Path, name: str, layer: str, options: dict[str, Any]) -> dict[str, Any]:
    import pyogrio

    info = _as_any_encoding(pyogrio.read_info, file, options, layer=layer, force_feature_count=True)
    if info["driver"] not in DRIVERS:
        raise VectorFileRefused(
            f"{name} is read as {info['driver']}, which is not a label format: save it as GeoPackage."
        )
    if info["features"] > MAX_FEATURES:
        raise VectorFileRefused(f"{name} has {info['features']:,} features, more than {MAX_FEATURES:,}: split it.")
    return info  # type: ignore[no-any-return]


def _read_layer(file: Path, layer: str, info: dict[str, Any], options: dict[str, Any], **part: int) -> Any:
    import pyogrio.raw

    columns = [
        str(field) for field, kind in zip(info["fields"], info["dtypes"], strict=True) if "list" not in str(kind)
    ]
    return _as_any_encoding(
        pyogrio.raw.read, file, options, layer=layer, columns=columns, return_fids=True, datetime_as_string=True, **part
    )


def _as_any_encoding(read: Callable[..., Any], file: Path, options: dict[str, Any], **arguments: Any) -> Any:
    """Latin 1 gives every byte a letter: a wrong accent beats an unreadable inventory."""
    try:
        return read(file, **options, **arguments)
    except UnicodeDecodeError:
        options["encoding"] = "ISO-8859-1"
        return read(file, **options, **arguments)


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
