"""The pixels of tiles: each modality on the tile's own grid, with a validity mask.

A chip is deterministic: it depends on the tile, the modalities and the registered scenes, not on what was read before.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from shapely import STRtree

from thawloop.catalog.errors import ChipUnreadable
from thawloop.catalog.expressions import parse_expression
from thawloop.catalog.gdal import gdal_environment
from thawloop.catalog.geometry import ground_pixel_size, tile_transform, to_shapely
from thawloop.catalog.models import Modality, Scene, Tile
from thawloop.catalog.open_files import OpenFiles
from thawloop.catalog.placement import Target
from thawloop.catalog.resampling import read_scene
from thawloop.catalog.selectors import direct_inputs, scenes_of_period
from thawloop.catalog.terrain import derive_terrain, halo_of
from thawloop.core.errors import Refused
from thawloop.core.foreign import error_text

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Chip:
    """The pixels of a tile.

    arrays: for each modality float32 [C, H, W] in its unit, NaN where not valid.
    valid: for each modality bool [H, W].
    transform: pixel → `crs`, north up.
    A modality without a single valid pixel on the tile is in neither.
    """

    key: str
    arrays: dict[str, Array]
    valid: dict[str, NDArray[np.bool_]]
    transform: Affine
    crs: CRS


def read_chip(tile: Tile, modalities: Sequence[Modality]) -> Chip:
    """Read one tile. To read many, keep a `ChipReader`: it keeps files open and remembers scenes.

    Raises:
        ChipUnreadable: A registered raster is gone or damaged.
    """
    with ChipReader(modalities, only=tile) as reader:
        return reader.read(tile)


class ChipReader:
    """Reads chips of the same modalities, keeping files open between tiles. One thread at a time may read.

    Scenes registered after a reader first looked at a period are not seen by it: make readers as long-lived as a job.
    A reader for one tile `only` asks the database for that tile's scenes instead of all of the period.
    """

    def __init__(self, modalities: Sequence[Modality], *, only: Tile | None = None) -> None:
        self.modalities = list(modalities)
        self._only = only
        self._files = OpenFiles()
        self._scenes: dict[tuple[Any, ...], _SceneIndex] = {}
        self._inputs: dict[int, list[Modality]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(gdal_environment())
        self._stack.callback(self._files.close)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def read(self, tile: Tile) -> Chip:
        """Read the pixels of a tile.

        Raises:
            ChipUnreadable: A registered raster is gone or damaged.
        """
        grid = tile.grid
        target = Target(grid.srid, tile_transform(tile), grid.tile_size, grid.tile_size)
        arrays: dict[str, Array] = {}
        done: dict[tuple[int, Target], Array | None] = {}
        for modality in self.modalities:
            values = self._read(tile, modality, target, done)
            if values is not None:
                arrays[modality.name] = values
        valid = {name: ~np.isnan(values[0]) for name, values in arrays.items()}
        return Chip(tile.key, arrays, valid, target.transform, CRS.from_epsg(grid.srid))

    def prepare(self, tiles: Iterable[Tile]) -> None:
        """Ask the database for all that reading these tiles takes, so that a thread without a connection may do it."""
        for tile in {(tile.period_start, tile.period_end): tile for tile in tiles}.values():
            wanted = list(self.modalities)
            while wanted:
                modality = wanted.pop()
                if modality.derivation == Modality.Derivation.NONE:
                    self.scenes(tile, modality)
                else:
                    wanted += self._inputs_of(modality)

    def scenes(self, tile: Tile, modality: Modality) -> list[Scene]:
        """The scenes that a measured modality's pixels on a tile may come from, the one on top first."""
        period = (tile.period_start, tile.period_end)
        key = (modality.pk, *period)
        if key not in self._scenes:
            self._scenes[key] = _SceneIndex(modality, *period, self._only)
        return self._scenes[key].meeting(tile)

    def _read(
        self, tile: Tile, modality: Modality, target: Target, done: dict[tuple[int, Target], Array | None]
    ) -> Array | None:
        """One modality on a target; what several derived modalities share is read once (`done`)."""
        key = (modality.pk, target)
        if key not in done:
            match modality.derivation:
                case Modality.Derivation.NONE:
                    values = self._mosaic(tile, modality, target)
                case Modality.Derivation.EXPRESSION:
                    values = self._compute(tile, modality, target, done)
                case _:
                    values = self._derive(tile, modality, target, done)
            if values is not None and np.isnan(values[0]).all():
                values = None
            done[key] = values
        return done[key]

    def _compute(
        self, tile: Tile, modality: Modality, target: Target, done: dict[tuple[int, Target], Array | None]
    ) -> Array | None:
        expression = parse_expression(modality.expression, bands=len(modality.bands))
        inputs = {source.name: source for source in self._inputs_of(modality)}
        arrays = {name: self._read(tile, source, target, done) for name, source in inputs.items()}
        values: dict[tuple[str, str], Array] = {}
        for name, band in expression.bands:
            array = arrays[name]
            if array is None:
                return None
            values[name, band] = array[inputs[name].bands.index(band) if band else 0]
        result = expression.evaluate(values)
        result[:, np.isnan(result).any(axis=0)] = np.nan
        return result

    def _derive(
        self, tile: Tile, modality: Modality, target: Target, done: dict[tuple[int, Target], Array | None]
    ) -> Array | None:
        (source,) = self._inputs_of(modality)
        pixel_x, pixel_y = ground_pixel_size(tile)
        halo = halo_of(modality, min(pixel_x, pixel_y))
        elevation = self._read(tile, source, target.expanded(halo), done)
        if elevation is None:
            return None
        return derive_terrain(modality, elevation[0], pixel_x, pixel_y)[None, halo:-halo, halo:-halo]

    def _inputs_of(self, modality: Modality) -> list[Modality]:
        if modality.pk not in self._inputs:
            self._inputs[modality.pk] = direct_inputs(modality)
        return self._inputs[modality.pk]

    def _mosaic(self, tile: Tile, modality: Modality, target: Target) -> Array | None:
        """Fill the target from the best scene, then what is still empty from the next."""
        result: Array | None = None
        for scene in self.scenes(tile, modality):
            values = self._read_scene(tile, scene, modality, target)
            if values is None:
                continue
            if result is None:
                result = values
            else:
                np.copyto(result, values, where=np.isnan(result[0]))
            if not np.isnan(result[0]).any():
                break
        return result

    def _read_scene(self, tile: Tile, scene: Scene, modality: Modality, target: Target) -> Array | None:
        try:
            dataset, placement = self._files.open(scene, target.srid, tile.grid.pixel_size)
            return read_scene(dataset, scene, placement, target, Resampling[modality.resampling])
        except (RasterioError, Refused) as error:
            raise ChipUnreadable(
                f"Tile {tile.key} cannot be read from scene {scene.pk} of modality `{modality.name}` ({scene.uri}): "
                f"{error_text(error)}. Put the file back as it was registered, or register its replacement."
            ) from error


@dataclass
class _SceneIndex:
    """The scenes of a modality that serve a period, best first: newest, or for a static modality nearest in time."""

    modality: Modality
    start: date
    end: date
    only: Tile | None
    scenes: list[Scene] = field(init=False)

    def __post_init__(self) -> None:
        found = scenes_of_period(self.modality, self.start, self.end).defer("crs").order_by("-acquired", "-id")
        if self.only is not None:
            found = found.filter(footprint__intersects=self.only.geometry)
        self.scenes = sorted(found, key=self._days_outside)  # stable: newest first among equals
        # Tiles at the antimeridian and footprints there are both split at ±180, so plane geometry serves.
        self.tree = STRtree([to_shapely(scene.footprint) for scene in self.scenes])

    def _days_outside(self, scene: Scene) -> int:
        before: int = (self.start - scene.acquired).days
        return max(before, (scene.acquired - self.end).days, 0)

    def meeting(self, tile: Tile) -> list[Scene]:
        """The scenes whose footprint meets the tile, best first."""
        return [self.scenes[i] for i in sorted(self.tree.query(to_shapely(tile.geometry), predicate="intersects"))]


def write_chip(path: Path, array: Array, valid: NDArray[np.bool_], transform: Affine, crs: CRS) -> None:
    """Write one modality of a chip as a float32 GeoTIFF whose nodata value is NaN (the dataset contract).

    The bytes depend only on the arguments, so that equal chips have equal checksums.

    Args:
        path: Where; its folder must exist.
        array: float32 [C, H, W].
        valid: bool [H, W].
        transform: Pixel → CRS.
        crs: The grid's CRS.
    """
    pixels = np.where(valid[None], array, np.float32(np.nan)).astype(np.float32)
    bands, height, width = pixels.shape
    with (
        gdal_environment(),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=bands,
            dtype="float32",
            crs=crs,
            transform=transform,
            nodata=float("nan"),
            compress="deflate",
            predictor=3,
        ) as file,
    ):
        file.write(pixels)
