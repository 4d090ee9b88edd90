"""What a campaign file says, as plain data."""

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thawloop.campaigns.settings import AcquisitionSettings, DetectorSettings

SPLITS = ("train", "val", "test")
COLORS = ("#e6194b", "#4363d8", "#3cb44b", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#9a6324")


@dataclass(frozen=True)
class ClassSpec:
    """A landform class."""

    name: str
    title: str = ""
    color: str = COLORS[0]
    description: str = ""


@dataclass(frozen=True)
class GridSpec:
    """The tile grid: EPSG code, metres per pixel, pixels per tile side, pixels shared by neighbours."""

    name: str
    srid: int
    pixel_size: float
    tile_size: int
    overlap: int = 0


@dataclass(frozen=True)
class PeriodSpec:
    """When the imagery is from; scenes of modalities that are not static must be acquired within it."""

    label: str
    start: datetime.date
    end: datetime.date


@dataclass(frozen=True)
class RasterSpec:
    """A raster file of a modality. `value = raw * scale + offset`; None: as the file says."""

    uri: str
    bands: tuple[int, ...] | None
    acquired: datetime.date
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    mask_band: int | None = None
    alpha: str | None = None
    color_table: str | None = None
    provider: str = ""
    licence: str = ""


@dataclass(frozen=True)
class ModalitySpec:
    """A modality of the campaign; `definition` is empty for built-in ones."""

    name: str
    definition: dict[str, Any] = field(default_factory=dict)
    files: tuple[RasterSpec, ...] = ()
    is_anchor: bool = False
    is_shown: bool = True
    is_model_input: bool = True


@dataclass(frozen=True)
class SplitSpec:
    """How a region is divided, in whole blocks of tiles, into train, val and test parts."""

    fractions: dict[str, float] = field(default_factory=lambda: {"train": 0.6, "val": 0.15, "test": 0.25})
    block_tiles: int = 4
    seed: int = 0


@dataclass(frozen=True)
class RegionSpec:
    """A study area: a vector file, a box (west, south, east, north in degrees), or what a modality's files cover."""

    name: str
    title: str
    split: str | SplitSpec
    file: Path | None = None
    bbox: tuple[float, float, float, float] | None = None
    footprint_of: str = ""
    layer: str = ""
    crs: str = ""


@dataclass(frozen=True)
class LabelSpec:
    """Label files: taken in as truth, or held back to play the annotators in `make demo CAMPAIGN=`."""

    files: tuple[Path, ...]
    role: str
    landform_class: str = ""
    class_field: str = ""
    splits: tuple[str, ...] = SPLITS
    layer: str = ""
    crs: str = ""
    max_area: float | None = None


@dataclass(frozen=True)
class PolicySpec:
    """When the campaign retrains by itself, and what a new model must prove."""

    enabled: bool = True
    min_new_tiles: int = 50
    min_new_labels: int = 0
    cooldown_minutes: int = 0
    gate_min_gain: float = 0.0


@dataclass(frozen=True)
class DemoSpec:
    """The guided run: how many rounds, and how the simulated annotators behave."""

    rounds: int = 3
    wobble_pixels: float = 1.0
    miss_small: float = 0.25
    miss_large: float = 0.02
    skip: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class CampaignSpec:
    """Everything a campaign file says."""

    source: Path
    name: str
    title: str
    classes: tuple[ClassSpec, ...]
    score_threshold: float
    split_buffer: float
    licence: str
    citation: str
    grid: GridSpec
    period: PeriodSpec
    modalities: tuple[ModalitySpec, ...]
    regions: tuple[RegionSpec, ...]
    labels: tuple[LabelSpec, ...]
    acquisition: AcquisitionSettings
    detector: DetectorSettings
    policy: PolicySpec
    demo: DemoSpec

    @property
    def anchor(self) -> ModalitySpec:
        """The modality that people draw on and that fusion adds to."""
        return next(modality for modality in self.modalities if modality.is_anchor)

    @property
    def local_folders(self) -> tuple[Path, ...]:
        """The folders that hold the campaign's local files, resolved: what THAWLOOP_DATA_ROOTS must allow."""
        uris = [raster.uri for modality in self.modalities for raster in modality.files]
        paths = [Path(uri) for uri in uris if "://" not in uri]
        paths += [file for label in self.labels for file in label.files]
        paths += [region.file for region in self.regions if region.file]
        return tuple(sorted({path.resolve().parent for path in paths}))
