"""Small rasters on disk and the rows around them.

This file may be loaded before Django is set up, so the fixtures import what they need themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely.geometry import box

from tests.catalog.periods import SUMMER, YEAR

if TYPE_CHECKING:
    from thawloop.catalog.models import Modality, Region, Scene, Tile, TileGrid

UTM_CORNER = Affine(10, 0, 500_000, 0, -10, 7_600_000)

WriteRaster = Callable[..., Path]
MakeModality = Callable[..., "Modality"]
MakeScene = Callable[..., "Scene"]
MakeTile = Callable[..., "Tile"]


@pytest.fixture(autouse=True)
def data_roots(tmp_path: Path, settings: Any, pytestconfig: pytest.Config) -> None:
    """Rasters may be read from the test's own folder."""
    settings.THAWLOOP_DATA_ROOTS = [str(tmp_path)]


@pytest.fixture
def write_raster(tmp_path: Path) -> WriteRaster:
    """Write an array [C, H, W] or [H, W] as a GeoTIFF in EPSG:32608 with 10 m pixels, unless told otherwise."""

    def write(
        array: Any,
        name: str = "scene.tif",
        *,
        crs: str | None = "EPSG:32608",
        transform: Affine | None = UTM_CORNER,
        descriptions: tuple[str, ...] = (),
        mask: Any = None,
        **profile: Any,
    ) -> Path:
        array = np.atleast_3d(array) if np.ndim(array) == 3 else np.asarray(array)[None]
        path = tmp_path / name
        profile = {"driver": "GTiff", **profile}
        with rasterio.open(
            path,
            "w",
            width=array.shape[2],
            height=array.shape[1],
            count=array.shape[0],
            dtype=array.dtype,
            crs=crs,
            transform=transform,
            **profile,
        ) as file:
            file.write(array)
            for band, description in enumerate(descriptions, start=1):
                file.set_band_description(band, description)
            if mask is not None:
                file.write_mask(mask)
        return path

    return write


@pytest.fixture
def make_modality(db: None) -> MakeModality:
    """A measured modality of given bands, nearest resampling unless told otherwise."""
    from thawloop.catalog.services import define_modality

    def make(name: str = "rgb", bands: tuple[str, ...] = ("red", "green", "blue"), **fields: Any) -> Modality:
        defaults = {"bands": list(bands), "range_min": 0.0, "range_max": 255.0, "resampling": "nearest"}
        return define_modality(name, **{**defaults, **fields})

    return make


@pytest.fixture
def make_scene(write_raster: WriteRaster, make_modality: MakeModality) -> MakeScene:
    """A registered scene of an array; its modality is one of that many bands."""
    from thawloop.catalog.scene_options import SceneOptions
    from thawloop.catalog.services import register_scene

    def make(
        array: Any, *, modality: Modality | None = None, acquired: date = SUMMER, register: Any = None, **raster: Any
    ) -> Scene:
        count = np.shape(array)[0] if np.ndim(array) == 3 else 1
        if modality is None:
            modality = make_modality(f"m{count}", tuple(f"b{i}" for i in range(count)))
        options = SceneOptions(**(register or {}))
        scene, _ = register_scene(
            str(write_raster(array, **raster)), modality=modality, acquired=acquired, options=options
        )
        return scene

    return make


@pytest.fixture
def make_tile(db: None) -> MakeTile:
    """A saved tile at a projected place (metres of its grid's CRS), with its true footprint."""
    from thawloop.catalog.geometry import project
    from thawloop.catalog.models import Tile
    from thawloop.catalog.services import create_tiles, define_grid, define_region

    def make(
        x: float = 500_000,
        y: float = 7_600_000,
        *,
        srid: int = 32608,
        pixel_size: float = 10,
        tile_size: int = 64,
        overlap: int = 0,
    ) -> Tile:
        name = f"g{srid}-{str(pixel_size).replace('.', '_')}-{tile_size}-{overlap}"
        grid = define_grid(name, srid, pixel_size, tile_size, overlap)
        step = (tile_size - overlap) * pixel_size
        col, row = int(x // step), int(y // step)
        side = tile_size * pixel_size
        inside = box(
            col * step + 0.45 * side, row * step + 0.45 * side, col * step + 0.55 * side, row * step + 0.55 * side
        )
        region = define_region(f"r-{name}-{col}-{row}".replace("--", "-m"), project(inside, srid, 4326))
        create_tiles(grid, region, **YEAR)
        return Tile.objects.select_related("grid").get(grid=grid, col=col, row=row)

    return make


@pytest.fixture
def make_region(db: None) -> Callable[..., Region]:
    """A rectangular region given in metres of a projected CRS."""
    from thawloop.catalog.geometry import project
    from thawloop.catalog.services import define_region

    def make(name: str, left: float, bottom: float, right: float, top: float, srid: int = 32608) -> Region:
        return define_region(name, project(box(left, bottom, right, top).segmentize((right - left) / 8), srid, 4326))

    return make


@pytest.fixture
def grid(db: None) -> TileGrid:
    """UTM 8N, 10 m, 64 px."""
    from thawloop.catalog.services import define_grid

    return define_grid("utm", 32608, 10, 64)
