"""The modalities of a campaign file, and the raster files of each."""

import datetime
import os
from pathlib import Path
from typing import Any

from thawloop.setup.spec import ModalitySpec, PeriodSpec, RasterSpec
from thawloop.setup.table import Table

_REAL_DATA = "${THAWLOOP_REAL_DATA}"


class Paths:
    """Turns what a file calls a path into an absolute path, or leaves a URI alone."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def uri(self, table: Table, key: str, text: str) -> str:
        if text.startswith(_REAL_DATA):
            folder = os.environ.get("THAWLOOP_REAL_DATA")
            if not folder:
                table.refuse(
                    f"`{key}` begins with {_REAL_DATA}, which is not set: export THAWLOOP_REAL_DATA=FOLDER.", key
                )
            text = folder + text[len(_REAL_DATA) :]
        if "$" in text:
            table.refuse(f"`{key}`: only {_REAL_DATA} is replaced in paths, and only at the beginning.", key)
        if not text:
            table.refuse(f"`{key}` is empty; give the path of a file.", key)
        return text if "://" in text or text.startswith("/vsi") else os.path.normpath(self._base / text)

    def local(self, table: Table, key: str, text: str) -> Path:
        found = self.uri(table, key, text)
        if "://" in found or found.startswith("/vsi"):
            table.refuse(f"`{key}` must be a local file, not {found}.", key)
        return Path(found)


def read_modalities(tables: list[Table], period: PeriodSpec, paths: Paths) -> tuple[ModalitySpec, ...]:
    found = [_modality(table, period, paths) for table in tables]
    names = [modality.name for modality in found]
    for table, name in zip(tables, names, strict=True):
        if names.count(name) > 1:
            table.refuse(f"the modality `{name}` is given twice; list all its files in one table.", "name")
    anchors = [n for n, modality in enumerate(found) if modality.is_anchor]
    if len(anchors) != 1:
        tables[anchors[1] if anchors else 0].refuse(
            f"exactly one modality must have `anchor = true` (the picture people draw on), not {len(anchors)}.",
            "anchor" if anchors else None,
        )
    if not any(modality.is_model_input for modality in found):
        tables[0].refuse("at least one modality must be a `model_input`.")
    return tuple(found)


# Keys of a modality that is not built in, and the model field each one fills.
_DEFINITION: dict[str, tuple[type, str]] = {
    "title": (str, "title"),
    "kind": (str, "kind"),
    "unit": (str, "unit"),
    "resampling": (str, "resampling"),
    "static": (bool, "is_static"),
    "derivation": (str, "derivation"),
    "source": (str, "source"),
    "expression": (str, "expression"),
    "parameters": (dict, "parameters"),
    "colormap": (str, "colormap"),
}


def _modality(table: Table, period: PeriodSpec, paths: Paths) -> ModalitySpec:
    name = table.name("name", longest=50)
    definition: dict[str, Any] = {
        target: table.get(key, kind) for key, (kind, target) in _DEFINITION.items() if table.has(key)
    }
    if table.has("band_names"):
        definition["bands"] = list(table.items("band_names", str))
    if table.has("range"):
        low_high = table.items("range", float)
        if len(low_high) != 2 or low_high[0] >= low_high[1]:
            table.refuse("`range` must be [smallest, largest], e.g. [0, 1].", "range")
        definition["range_min"], definition["range_max"] = low_high
    files = _rasters(table, period, paths)
    is_anchor = table.get("anchor", bool, False)
    spec = ModalitySpec(
        name, definition, files, is_anchor, table.get("shown", bool, True), table.get("model_input", bool, True)
    )
    if is_anchor and not spec.is_shown:
        table.refuse("the anchor is the picture people draw on, so it cannot have `shown = false`.", "shown")
    table.finish()
    return spec


def _rasters(table: Table, period: PeriodSpec, paths: Paths) -> tuple[RasterSpec, ...]:
    defaults = _raster_options(table, {"acquired": period.start})
    if not table.has("files"):
        return ()
    found = []
    texts = table.items("files", object)
    for n, item in enumerate(texts):
        if isinstance(item, str):
            found.append(RasterSpec(uri=paths.uri(table, "files", item), **defaults))
        elif isinstance(item, dict):
            inner = table.item("files", n)
            uri = paths.uri(inner, "path", inner.get("path", str))
            found.append(RasterSpec(uri=uri, **_raster_options(inner, defaults)))
            inner.finish()
        else:
            table.refuse(
                '`files` must hold paths in quotes, or tables such as {path = "a.tif", bands = [3, 2, 1]}.', "files"
            )
    return tuple(found)


def _raster_options(table: Table, defaults: dict[str, Any]) -> dict[str, Any]:
    """What describes a raster: given once for the modality, or for each file."""
    bands = table.items("bands", int) if table.has("bands") else defaults.get("bands")
    if bands and min(bands) < 1:
        table.refuse("`bands` counts from 1.", "bands")
    mask_band = table.optional("mask_band", int) or defaults.get("mask_band")
    if mask_band is not None and mask_band < 1:
        table.refuse("`mask_band` counts from 1.", "mask_band")
    numbers = {key: table.optional(key, float) for key in ("scale", "offset", "nodata")}
    words = {
        key: table.choice(key, choices) if table.has(key) else defaults.get(key)
        for key, choices in (("alpha", ("validity", "ignored")), ("color_table", ("ignored",)))
    }
    return {
        "bands": bands,
        "acquired": table.get("date", datetime.date, defaults["acquired"]),
        **{key: defaults.get(key) if value is None else value for key, value in numbers.items()},
        **words,
        "mask_band": mask_band,
        "provider": table.get("provider", str, defaults.get("provider", "")),
        "licence": table.get("licence", str, defaults.get("licence", "")),
    }
