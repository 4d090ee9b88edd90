"""A small campaign with real rasters: twelve train tiles and six test tiles of 64 px, RGB everywhere, DEM on a part."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from shapely.geometry import Polygon, box, mapping
from shapely.geometry.base import BaseGeometry

from labeling.labelstudio.config import anchor_picture
from labeling.labelstudio.regions import ShownInstance, write_result
from labeling.labelstudio.submissions import record_payload
from labeling.models import Annotation, AnnotationTask
from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion, LandformClass
from thawloop.catalog.geometry import project
from thawloop.catalog.models import Modality, Tile, TileGrid
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import create_tiles, define_grid, define_modality, define_region, register_scene

SRID, PIXEL, SIZE = 3413, 3.0, 64
# Column and row of the lower left tile; on Alaska's North Slope. And where the antimeridian runs through the site.
COL, ROW = -10_400, 5_200
DATE_LINE = (-8_502, 8_498)
PERIOD = {"period": "2021", "period_start": date(2021, 6, 1), "period_end": date(2021, 9, 30)}
MARGIN = 20.0


@dataclass
class Site:
    """Where things are: columns and rows counted from the lower left tile, pixels from a tile's upper left."""

    overlap: int = 0
    origin: tuple[int, int] = (COL, ROW)

    @property
    def step(self) -> float:
        return (SIZE - self.overlap) * PIXEL

    def block(self, col: int, row: int, cols: int, rows: int, margin: float = MARGIN) -> BaseGeometry:
        """Tiles as one geographic polygon, a little larger."""
        left, bottom = (self.origin[0] + col) * self.step - margin, (self.origin[1] + row) * self.step - margin
        right = (self.origin[0] + col + cols - 1) * self.step + SIZE * PIXEL + margin
        top = (self.origin[1] + row + rows - 1) * self.step + SIZE * PIXEL + margin
        shape = project(box(left, bottom, right, top).segmentize(SIZE * PIXEL), SRID, 4326)
        # A region across the antimeridian runs on beyond 180 degrees.
        crosses = shape.bounds[2] - shape.bounds[0] > 180
        return shapely.transform(shape, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]])) if crosses else shape

    def on_tile(self, col: int, row: int, *rings: Sequence[tuple[float, float]]) -> Polygon:
        """A geographic polygon from rings in a tile's pixels."""
        left, top = (self.origin[0] + col) * self.step, (self.origin[1] + row) * self.step + SIZE * PIXEL
        moved = [[(left + x * PIXEL, top - y * PIXEL) for x, y in ring] for ring in rings]
        return project(Polygon(moved[0], moved[1:]), SRID, 4326)

    def square(self, col: int, row: int, x: float = 10, y: float = 10, side: float = 20) -> Polygon:
        """A square on a tile, in pixels."""
        return self.on_tile(col, row, [(x, y), (x + side, y), (x + side, y + side), (x, y + side)])


def write_raster(path: Path, bands: int, *, col: int, row: int, cols: int, rows: int, site: Site) -> None:
    """Random pixels over some tiles."""
    width = round(((cols - 1) * site.step + SIZE * PIXEL) / PIXEL)
    height = round(((rows - 1) * site.step + SIZE * PIXEL) / PIXEL)
    left = (site.origin[0] + col) * site.step
    top = (site.origin[1] + row + rows - 1) * site.step + SIZE * PIXEL
    pixels = np.random.default_rng(bands).integers(1, 255, (bands, height, width), dtype=np.uint8)
    transform = Affine(PIXEL, 0, left, 0, -PIXEL, top)
    with rasterio.open(
        path, "w", "GTiff", width, height, bands, f"EPSG:{SRID}", transform, "uint8", tiled=True
    ) as file:
        file.write(pixels)


def make_campaign(
    data_root: Path,
    *,
    val: bool = False,
    overlap: int = 0,
    origin: tuple[int, int] = (COL, ROW),
    dem_columns: int = 2,
) -> Campaign:
    """Make the campaign.

    Args:
        data_root: Gets its rasters.
        val: Also three val tiles.
        overlap: Of neighbouring tiles, in pixels.
        origin: Column and row of the lower left tile.
        dem_columns: How many columns of tiles have the DEM, from the west.
    """
    site = Site(overlap, origin)
    rgb = define_modality(
        "rgb", bands=["red", "green", "blue"], range_min=0, range_max=255, title="RGB", kind="optical"
    )
    dem = define_modality("dem", bands=["elevation"], range_min=0, range_max=255, unit="m", is_static=True, title="DEM")
    write_raster(data_root / "rgb.tif", 3, col=0, row=0, cols=9, rows=3, site=site)
    write_raster(data_root / "dem.tif", 1, col=0, row=0, cols=dem_columns, rows=3, site=site)
    terms = {"acquired": date(2021, 7, 1), "options": SceneOptions(provider="Test", licence="CC0")}
    register_scene(str(data_root / "rgb.tif"), modality=rgb, **terms)
    register_scene(str(data_root / "dem.tif"), modality=dem, **terms)
    grid = define_grid("site", SRID, PIXEL, SIZE, overlap=overlap)
    campaign = Campaign.objects.create(name="site", title="A site", grid=grid, **PERIOD)
    campaign.classes.add(LandformClass.objects.get_or_create(name="RTS")[0])
    for position, modality in enumerate((rgb, dem)):
        CampaignModality.objects.create(
            campaign=campaign, modality=modality, position=position, is_anchor=modality is rgb
        )
    # A region holds the tiles whose centres it holds: overlapping ones reach out of it.
    margin = -overlap * PIXEL / 2 if overlap else MARGIN
    _add_region(campaign, grid, "site-train", "train", site.block(0, 0, 4, 3, margin))
    _add_region(campaign, grid, "site-test", "test", site.block(4 if overlap else 5, 0, 2, 3, margin))
    if val:
        _add_region(campaign, grid, "site-val", "val", site.block(8, 0, 1, 3, margin))
    return campaign


def _add_region(campaign: Campaign, grid: TileGrid, name: str, split: str, shape: BaseGeometry) -> None:
    region = define_region(name, shape)
    CampaignRegion.objects.create(campaign=campaign, region=region, split=split)
    create_tiles(grid, region, **PERIOD)


def write_labels(path: Path, *shapes: BaseGeometry | tuple[BaseGeometry, dict[str, Any]]) -> Path:
    """Write geographic shapes, each alone or with properties, as GeoJSON."""
    rows = [shape if isinstance(shape, tuple) else (shape, {}) for shape in shapes]
    features = [{"type": "Feature", "properties": p, "geometry": mapping(g)} for g, p in rows]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def tiles(campaign: Campaign, split: str) -> list[Tile]:
    """A split's tiles, west to east, south to north."""
    return list(Tile.objects.filter(region__name=f"site-{split}").select_related("grid").order_by("col", "row"))


def modality(name: str) -> Modality:
    """By name."""
    return Modality.objects.get(name=name)


def annotate(campaign: Campaign, tile: Tile, *shapes: list[list[tuple[float, float]]], number: int = 1) -> Annotation:
    """Submit shapes (rings in tile pixels) for a tile, as Label Studio would report it; `number`: which version."""
    task, _ = AnnotationTask.objects.get_or_create(
        campaign=campaign, tile=tile, defaults={"state": AnnotationTask.State.OPEN, "ls_task_id": tile.pk}
    )
    instances = [ShownInstance(f"r{index}", "RTS", rings) for index, rings in enumerate(shapes)]
    result = write_result(instances, tile_size=SIZE, picture=anchor_picture(campaign), picture_size=SIZE)
    moment = f"2021-10-01T00:00:{number:02d}Z"
    return record_payload(task, {"id": tile.pk, "updated_at": moment, "result": result})
