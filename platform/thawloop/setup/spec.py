"""What a campaign file says: each table is a model, each key a field. docs/campaign-file.md explains the keys."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from contracts.dataset import SPLITS, Split
from contracts.settings import AtLeastOne, NotNegative, Settings, Share, rule
from thawloop.campaigns.settings import AcquisitionSettings, DetectorSettings, SettingsError
from thawloop.setup.rasters import ModalitySpec
from thawloop.setup.table import (
    Date,
    Listed,
    LocalFile,
    LongName,
    Mistake,
    Name,
    OneOrMore,
    ShortName,
    Table,
    is_remote,
)

COLORS = ("#e6194b", "#4363d8", "#3cb44b", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#9a6324")

ClassName = Annotated[
    str,
    Field(
        pattern="^[A-Za-z0-9][A-Za-z0-9 _-]*$",
        max_length=50,
        description="a name of letters, digits, spaces, `_` and `-`, 50 characters at most",
    ),
]
NotNegativeNumber = Annotated[float, Field(ge=0)]


class CampaignTable(Table):
    """`[campaign]`; `split_buffer` is in metres."""

    name: Name
    title: str = Field(default_factory=lambda given: str(given["name"]))
    classes: OneOrMore[ClassName] = ()
    score_threshold: Share = 0.3
    split_buffer: Annotated[
        float, Field(ge=0, le=100_000, description="a distance in metres, at least 0 and at most 100000")
    ] = 0.0
    licence: str = ""
    citation: str = ""


class ClassSpec(Table):
    """A landform class."""

    name: ClassName
    title: str = ""
    color: Annotated[str, Field(pattern="^(#[0-9a-fA-F]{6})?$", description="written like #e6194b")] = ""
    description: str = ""


class GridSpec(Table):
    """The tile grid: EPSG code, metres per pixel, pixels per tile side, pixels shared by neighbours."""

    srid: int = 3413
    pixel_size: Annotated[float, Field(ge=0.01, le=100_000, description="a number of metres, from 0.01 to 100000")]
    tile_size: Annotated[int, Field(ge=32, le=4096, description="a whole number of pixels, from 32 to 4096")] = 512
    overlap: NotNegative = 0
    name: Name = Field(default_factory=lambda given: _grid_name(**given))

    def mistakes(self) -> Iterator[Mistake]:
        """An overlap of a whole tile."""
        if self.overlap >= self.tile_size:
            yield ("overlap",), f"`overlap` is {self.overlap}; it must be below `tile_size` ({self.tile_size})."


def _grid_name(srid: int, pixel_size: float, tile_size: int, overlap: int) -> str:
    return f"{srid}-{pixel_size:g}m-{tile_size}px{f'-o{overlap}' if overlap else ''}".replace(".", "_")


class PeriodSpec(Table):
    """When the imagery is from; scenes of modalities that are not static must be acquired within it."""

    start: Date
    end: Date
    label: ShortName = Field(default_factory=lambda given: str(given["start"].year))

    def mistakes(self) -> Iterator[Mistake]:
        """An end before the start."""
        if self.start > self.end:
            yield ("start",), f"`start` ({self.start}) is after `end` ({self.end})."


class Fractions(Table):
    """Shares of a region's tiles."""

    train: Share = 0.0
    val: Share = 0.0
    test: Share = 0.0


class SplitSpec(Table):
    """How a region is divided, in whole blocks of tiles, into train, val and test parts."""

    fractions: Fractions = Fractions(train=0.6, val=0.15, test=0.25)
    block_tiles: AtLeastOne = 4
    seed: int = 0

    @property
    def shares(self) -> dict[str, float]:
        """The share of each split that gets any."""
        return {split: share for split, share in self.fractions if share}

    def mistakes(self) -> Iterator[Mistake]:
        """Shares of more or less than the region."""
        total = sum(self.shares.values())
        if abs(total - 1) > 1e-6:
            yield ("fractions",), f"`fractions` must add up to 1, not {total:g}."


def _box(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) == 4:
        west, south, east, north = values
        if -180 <= west < east <= 180 and -90 <= south < north <= 90:
            return values
    raise ValueError("it must be [west, south, east, north] in degrees, west < east and south < north")


class RegionSpec(Table):
    """A study area: a vector file, a box (west, south, east, north in degrees), or what a modality's files cover."""

    name: LongName
    title: str = Field(default_factory=lambda given: str(given["name"]))
    file: LocalFile | None = None
    bbox: Annotated[Listed[float], AfterValidator(_box)] | None = None
    footprint_of: str = ""
    layer: str = ""
    crs: str = ""
    split: Annotated[
        Annotated[Split, Tag("one split")] | Annotated[SplitSpec, Tag("several splits")],
        Discriminator(lambda value: "several splits" if isinstance(value, dict) else "one split"),
    ] = "train"

    def mistakes(self) -> Iterator[Mistake]:
        """No place, or two."""
        given = [key for key in ("file", "bbox", "footprint_of") if key in self.model_fields_set]
        if len(given) != 1:
            yield tuple(given[1:2]), "a region needs exactly one of `file`, `bbox` and `footprint_of`."


class LabelSpec(Table):
    """Label files: taken in as truth, or held back to play the annotators in `make demo CAMPAIGN=`."""

    files: OneOrMore[LocalFile]
    role: Literal["truth", "simulate"]
    landform_class: Annotated[str, Field(alias="class")] = ""
    class_field: str = ""
    layer: str = ""
    crs: str = ""
    max_area: float | None = None
    splits: OneOrMore[Split] = Field(default_factory=lambda given: SPLITS if given["role"] == "truth" else ("train",))


class PolicySpec(Table):
    """When the campaign retrains by itself, and what a new model must prove."""

    enabled: bool = True
    min_new_tiles: NotNegative = 50
    min_new_labels: NotNegative = 0
    cooldown_minutes: NotNegative = 0
    gate_min_gain: Annotated[float, Field(ge=-1, le=1)] = 0.0


class DemoSpec(Table):
    """The guided run: how many rounds, and how the simulated annotators behave."""

    rounds: NotNegative = 3
    wobble_pixels: NotNegativeNumber = 1.0
    miss_small: Share = 0.25
    miss_large: Share = 0.02
    skip: Share = 0.02
    seed: NotNegative = 0


def _from_table(kind: type[Settings]) -> BeforeValidator:
    """Settings that are a section: instead of their refusal, which names no line, what pydantic found."""

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise PydanticCustomError("table_type", "not a table")
        try:
            return kind.from_json(value)
        except kind.refusal as refused:
            raise refused.__cause__ or refused from None

    return BeforeValidator(read)


class CampaignSpec(Table):
    """Everything a campaign file says."""

    campaign: CampaignTable
    classes: Listed[ClassSpec] = ()
    grid: GridSpec
    period: PeriodSpec
    modalities: Annotated[Listed[ModalitySpec], Field(min_length=1)]
    regions: Annotated[Listed[RegionSpec], Field(min_length=1)]
    labels: Listed[LabelSpec] = ()
    acquisition: Annotated[AcquisitionSettings, _from_table(AcquisitionSettings)] = AcquisitionSettings()
    detector: Annotated[DetectorSettings, _from_table(DetectorSettings)] = DetectorSettings()
    policy: PolicySpec = PolicySpec()
    demo: DemoSpec = DemoSpec()

    _source: Path

    def model_post_init(self, context: Any) -> None:
        """Remember the file."""
        self._source = context["file"]

    @property
    def source(self) -> Path:
        """The file."""
        return self._source

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.campaign.name

    @property
    def landforms(self) -> tuple[ClassSpec, ...]:
        """The campaign's classes, those that are only named and those that are described."""
        described = {item.name: item for item in self.classes}
        names = self.campaign.classes or tuple(described) or ("RTS",)
        found = [described.get(name, ClassSpec(name=name)) for name in names]
        colors = [item.color or COLORS[n % len(COLORS)] for n, item in enumerate(found)]
        return tuple(item.model_copy(update={"color": color}) for item, color in zip(found, colors, strict=True))

    @property
    def anchor(self) -> ModalitySpec:
        """The modality that people draw on and that fusion adds to."""
        return next(modality for modality in self.modalities if modality.anchor)

    @property
    def local_folders(self) -> tuple[Path, ...]:
        """The folders that hold the campaign's local files, resolved: what THAWLOOP_DATA_ROOTS must allow."""
        uris = [raster.path for modality in self.modalities for raster in modality.files]
        paths = [Path(uri) for uri in uris if not is_remote(uri)]
        paths += [file for labels in self.labels for file in labels.files]
        paths += [region.file for region in self.regions if region.file]
        return tuple(sorted({path.resolve().parent for path in paths}))

    def mistakes(self) -> Iterator[Mistake]:
        """Tables that do not fit each other."""
        for section in ("classes", "modalities", "regions"):
            names = [item.name for item in getattr(self, section)]
            for n, name in enumerate(names):
                if name in names[:n]:
                    yield (section, n, "name"), f"{name!r} is given twice in `[[{section}]]`; put it all in one table."
        yield from self._class_mistakes()
        yield from self._modality_mistakes()
        yield from self._label_mistakes()

    def _class_mistakes(self) -> Iterator[Mistake]:
        listed = self.campaign.classes
        if len(set(listed)) < len(listed):
            yield ("campaign", "classes"), "`classes` names a class twice."
        unlisted = [item.name for item in self.classes if listed and item.name not in listed]
        if unlisted:
            why = f"`classes` does not list {unlisted[0]!r}, which a `[[classes]]` table describes."
            yield ("campaign", "classes"), why

    def _modality_mistakes(self) -> Iterator[Mistake]:
        anchors = [n for n, modality in enumerate(self.modalities) if modality.anchor]
        if len(anchors) != 1:
            why = f"exactly one modality must have `anchor = true` (the picture people draw on), not {len(anchors)}."
            yield (("modalities", anchors[1], "anchor") if anchors else ("modalities", 0)), why
        inputs = [modality.name for modality in self.modalities if modality.model_input]
        if not inputs:
            yield ("modalities", 0), "at least one modality must be a `model_input`."
        try:
            self.detector.check_anchor(inputs)
        except SettingsError as error:
            yield ("detector", "anchor"), str(error)
        pictured = [modality.name for modality in self.modalities if modality.files]
        for n, region in enumerate(self.regions):
            if region.footprint_of and region.footprint_of not in pictured:
                yield ("regions", n, "footprint_of"), _no_choice("footprint_of", region.footprint_of, pictured)

    def _label_mistakes(self) -> Iterator[Mistake]:
        names = [landform.name for landform in self.landforms]
        for n, labels in enumerate(self.labels):
            if labels.landform_class and labels.landform_class not in names:
                yield ("labels", n, "class"), _no_choice("class", labels.landform_class, names)
            if bool(labels.class_field) == bool(labels.landform_class) and (labels.class_field or len(names) > 1):
                why = "give either `class` (one for the whole file) or `class_field` (the column that names it)."
                yield ("labels", n), why

    @model_validator(mode="after")
    def _name_the_only_class(self) -> Self:
        """Labels are of the campaign's class, where it has one and no column names it."""
        if len(self.landforms) > 1:
            return self
        only = {"landform_class": self.landforms[0].name}
        labels = tuple(labels if labels.class_field else labels.model_copy(update=only) for labels in self.labels)
        return self.model_copy(update={"labels": labels})


def _no_choice(key: str, value: str, choices: list[str]) -> str:
    return f"`{key}` is {value!r}; it {rule({'enum': choices})}."
