"""The campaign file: one small TOML file that describes an annotation effort. docs/campaign-file.md lists every key."""

import datetime
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from thawloop.campaigns.settings import AcquisitionSettings, DetectorSettings
from thawloop.core.errors import Refused
from thawloop.setup.rasters import Paths, read_modalities
from thawloop.setup.spec import (
    COLORS,
    SPLITS,
    CampaignSpec,
    ClassSpec,
    DemoSpec,
    GridSpec,
    LabelSpec,
    ModalitySpec,
    PeriodSpec,
    PolicySpec,
    RegionSpec,
    SplitSpec,
)
from thawloop.setup.table import CampaignFileError, Table

__all__ = ["CampaignFileError", "CampaignSpec", "parse_campaign_file"]

CLASS_NAME = r"[A-Za-z0-9][A-Za-z0-9 _-]*"

_SECTIONS = (
    *("campaign", "classes", "grid", "period", "modalities", "regions", "labels"),
    *("acquisition", "detector", "policy", "demo"),
)

S = TypeVar("S", PolicySpec, DemoSpec)
J = TypeVar("J", AcquisitionSettings, DetectorSettings)


def parse_campaign_file(path: Path) -> CampaignSpec:
    """Read a campaign file. Nothing but the file itself is opened: whether rasters exist is found at ingest.

    Args:
        path: The TOML file. Relative paths in it start at its folder; `${THAWLOOP_REAL_DATA}` may begin a path.

    Raises:
        CampaignFileError: the file cannot be read, is not TOML, or a key is unknown, missing or of a wrong value; the
            message names file, line and key.
    """
    path = Path(path)
    file = Table.read(path)
    paths = Paths(path.absolute().parent)
    file.know(*_SECTIONS)
    file.finish()
    for section in ("campaign", "grid", "period"):
        file.require(section)
    campaign = file.table("campaign")
    name = campaign.name("name", longest=50)
    title, score_threshold = campaign.get("title", str, name), _fraction(campaign, "score_threshold", 0.3)
    classes = _classes(campaign, file)
    period = _period(file.table("period"))
    modalities = read_modalities(file.tables("modalities", minimum=1), period, paths)

    def detector(values: dict[str, Any]) -> DetectorSettings:
        settings = DetectorSettings.from_json(values)
        settings.check_anchor([modality.name for modality in modalities if modality.is_model_input])
        return settings

    spec = CampaignSpec(
        source=path,
        name=name,
        title=title,
        classes=classes,
        score_threshold=score_threshold,
        split_buffer=_distance(campaign, "split_buffer"),
        licence=campaign.get("licence", str, ""),
        citation=campaign.get("citation", str, ""),
        grid=_grid(file.table("grid")),
        period=period,
        modalities=modalities,
        regions=_regions(file.tables("regions", minimum=1), modalities, paths),
        labels=_labels(file.tables("labels"), classes, paths),
        acquisition=_settings(file.table("acquisition"), AcquisitionSettings, AcquisitionSettings.from_json),
        detector=_settings(file.table("detector"), DetectorSettings, detector),
        policy=_plain(file.table("policy"), PolicySpec),
        demo=_plain(file.table("demo"), DemoSpec),
    )
    return spec


def _classes(campaign: Table, file: Table) -> tuple[ClassSpec, ...]:
    described = {}
    for position, table in enumerate(file.tables("classes")):
        name = table.name("name", longest=50, pattern=CLASS_NAME, allowed="letters, digits, spaces, `_` and `-`")
        color = table.get("color", str, COLORS[position % len(COLORS)])
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
            table.refuse(f"`color` is {color!r}; write it like #e6194b.", "color")
        described[name] = ClassSpec(name, table.get("title", str, ""), color, table.get("description", str, ""))
        table.finish()
    names = campaign.items("classes", str) if campaign.has("classes") else tuple(described) or ("RTS",)
    campaign.finish()
    for name in names:
        if not re.fullmatch(CLASS_NAME, name):
            campaign.refuse(f"the class name {name!r} may hold letters, digits, spaces, `_` and `-` only.", "classes")
    if len(set(names)) < len(names):
        campaign.refuse("`classes` names a class twice.", "classes")
    unlisted = [name for name in described if name not in names]
    if unlisted:
        campaign.refuse(f"`classes` does not list {unlisted[0]!r}, which a `[[classes]]` table describes.", "classes")
    return tuple(described.get(name, ClassSpec(name, color=COLORS[n % len(COLORS)])) for n, name in enumerate(names))


def _grid(table: Table) -> GridSpec:
    srid = table.get("srid", int, 3413)
    pixel_size = table.get("pixel_size", float)
    tile_size = table.get("tile_size", int, 512)
    overlap = table.get("overlap", int, 0)
    if pixel_size < 0.01:
        table.refuse(f"`pixel_size` is {pixel_size}; it is in metres and at least 0.01.", "pixel_size")
    if not 32 <= tile_size <= 4096:
        table.refuse(f"`tile_size` is {tile_size}; it is in pixels, from 32 to 4096.", "tile_size")
    if not 0 <= overlap < tile_size:
        table.refuse(f"`overlap` is {overlap}; it is in pixels, from 0 to below `tile_size` ({tile_size}).", "overlap")
    default = f"{srid}-{pixel_size:g}m-{tile_size}px{f'-o{overlap}' if overlap else ''}".replace(".", "_")
    name = table.name("name", longest=50, default=default)
    table.finish()
    return GridSpec(name, srid, pixel_size, tile_size, overlap)


def _period(table: Table) -> PeriodSpec:
    start, end = table.get("start", datetime.date), table.get("end", datetime.date)
    if start > end:
        table.refuse(f"`start` ({start}) is after `end` ({end}).", "start")
    label = table.name("label", longest=20, default=str(start.year))
    table.finish()
    return PeriodSpec(label, start, end)


def _regions(tables: list[Table], modalities: tuple[ModalitySpec, ...], paths: Paths) -> tuple[RegionSpec, ...]:
    found: list[RegionSpec] = []
    for table in tables:
        name = table.name("name", longest=70)
        if name in [region.name for region in found]:
            table.refuse(f"the region `{name}` is given twice.", "name")
        given = [key for key in ("file", "bbox", "footprint_of") if table.has(key)]
        if len(given) != 1:
            table.refuse(
                "a region needs exactly one of `file`, `bbox` and `footprint_of`.", given[1] if given else None
            )
        found.append(
            RegionSpec(
                name=name,
                title=table.get("title", str, name),
                split=_split(table),
                file=paths.local(table, "file", table.get("file", str)) if table.has("file") else None,
                bbox=_bbox(table) if table.has("bbox") else None,
                footprint_of=_footprint(table, modalities) if table.has("footprint_of") else "",
                layer=table.get("layer", str, ""),
                crs=table.get("crs", str, ""),
            )
        )
        table.finish()
    return tuple(found)


def _split(table: Table) -> str | SplitSpec:
    if not table.is_table("split"):
        return table.choice("split", SPLITS, "train")
    split = table.table("split")
    default = SplitSpec()
    fractions = split.table("fractions")
    shares = {name: fractions.get(name, float, 0.0) for name in SPLITS} if fractions.keys else default.fractions
    fractions.finish()
    if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        split.refuse(f"`fractions` must not be negative and add up to 1, not {sum(shares.values()):g}.", "fractions")
    block_tiles = split.get("block_tiles", int, default.block_tiles)
    if block_tiles < 1:
        split.refuse(f"`block_tiles` is {block_tiles}; it is at least 1.", "block_tiles")
    seed = split.get("seed", int, default.seed)
    split.finish()
    return SplitSpec({name: share for name, share in shares.items() if share}, block_tiles, seed)


def _bbox(table: Table) -> tuple[float, float, float, float]:
    box = table.items("bbox", float)
    if len(box) != 4:
        table.refuse("`bbox` must be [west, south, east, north] in degrees.", "bbox")
    west, south, east, north = box
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        table.refuse("`bbox` must be [west, south, east, north] in degrees, west < east and south < north.", "bbox")
    return west, south, east, north


def _footprint(table: Table, modalities: tuple[ModalitySpec, ...]) -> str:
    return table.choice("footprint_of", [modality.name for modality in modalities if modality.files])


def _labels(tables: list[Table], classes: tuple[ClassSpec, ...], paths: Paths) -> tuple[LabelSpec, ...]:
    found = []
    for table in tables:
        role = table.choice("role", ("truth", "simulate"))
        names = [landform.name for landform in classes]
        default = names[0] if len(names) == 1 and not table.has("class_field") else ""
        splits = table.items("splits", str) if table.has("splits") else SPLITS if role == "truth" else ("train",)
        unknown = [split for split in splits if split not in SPLITS]
        if unknown:
            table.refuse(f"`splits` names {unknown[0]!r}; it can hold train, val and test.", "splits")
        landform_class = table.choice("class", names) if table.has("class") else default
        class_field = table.get("class_field", str, "")
        if bool(landform_class) == bool(class_field):
            table.refuse("give either `class` (one for the whole file) or `class_field` (the column that names it).")
        found.append(
            LabelSpec(
                files=tuple(paths.local(table, "files", text) for text in table.items("files", str)),
                role=role,
                landform_class=landform_class,
                class_field=class_field,
                splits=splits,
                layer=table.get("layer", str, ""),
                crs=table.get("crs", str, ""),
                max_area=table.optional("max_area", float),
            )
        )
        table.finish()
    return tuple(found)


def _settings(table: Table, kind: type[J], from_json: Callable[[dict[str, Any]], J]) -> J:
    """A section that is handed on as it stands: its dataclass knows the keys and judges the values."""
    values = table.raw([field.name for field in fields(kind)])
    try:
        return from_json(values)
    except Refused as error:
        table.refuse(str(error), next((key for key in values if f"`{key}`" in str(error)), None))


def _plain(table: Table, kind: type[S]) -> S:
    """A section of switches and numbers that must not be negative; shares are at most 1."""
    values: dict[str, Any] = {}
    for known in fields(kind):
        value = table.get(known.name, type(known.default), known.default)
        is_number = not isinstance(value, bool)
        if is_number and value < 0 and known.name != "gate_min_gain":
            table.refuse(f"`{known.name}` is {value}; it cannot be negative.", known.name)
        if known.name in ("miss_small", "miss_large", "skip", "gate_min_gain") and abs(value) > 1:
            table.refuse(f"`{known.name}` is {value}; it is a share and at most 1.", known.name)
        values[known.name] = value
    table.finish()
    return kind(**values)


def _distance(table: Table, key: str) -> float:
    value = table.get(key, float, 0.0)
    if not 0 <= value <= 100_000:
        table.refuse(f"`{key}` is {value}; it is a distance of 0 to 100000 metres.", key)
    return value


def _fraction(table: Table, key: str, default: float) -> float:
    value = table.get(key, float, default)
    if not 0 <= value <= 1:
        table.refuse(f"`{key}` is {value}; it is from 0 to 1.", key)
    return value
