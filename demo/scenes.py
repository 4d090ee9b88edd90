"""Generated scenes with a known answer: tundra, lakes, a river, thaw slumps, and what only looks like them.

Look-alikes are made so that no modality alone suffices: bare patches have the slumps' colours but no depression, green
bowls have the depression but not the bare floor.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.features
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.transform import Affine, from_origin
from scipy import ndimage

from demo.landforms import BARE_PATCH, GREEN_BOWL, SLUMP, Landform, blob_outline, slump_outline
from demo.painting import Conditions, paint
from demo.terrain import Grid, Ground, Mask, fractal, make_ground

# Jesse Moraine, Banks Island: one of the densest swarms of thaw slumps on Earth.
PLACE_LON, PLACE_LAT = -119.9, 72.7
SRID = 3413
FILES = ("optical.tif", "dem.tif", "truth.geojson")
NODATA_DEM = -9999.0
REFLECTANCE_SCALE = 1e-4


@dataclass(frozen=True)
class SceneSize:
    """How large: whole tiles of a grid.

    Attributes:
        columns, rows: Tiles.
        tile_size: Pixels per tile side.
        pixel_size: Metres.
    """

    columns: int = 14
    rows: int = 9
    tile_size: int = 128
    pixel_size: float = 3.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns in pixels."""
        return self.rows * self.tile_size, self.columns * self.tile_size


@dataclass(frozen=True)
class GeneratedScenes:
    """Where the files are, and how much is in them."""

    optical: Path
    dem: Path
    truth: Path
    slumps: int
    look_alikes: int


def generate(folder: Path, size: SceneSize | None = None, *, seed: int = 0) -> GeneratedScenes:
    """Write a four-band optical scene, a coarser DEM with a missing corner, and the true outlines.

    `optical.tif`: blue, green, red, nir; uint16, reflectance = value * 1e-4, 0 is nodata. `dem.tif`: metres, float32,
    at 4/3 of the optical pixel size. `truth.geojson`: polygons in EPSG:4326. Same size and seed: same files.
    """
    size = size or SceneSize()
    rng = np.random.default_rng(seed)
    ground = make_ground(size.shape, size.pixel_size, rng)
    forms = place(ground, size, rng)
    elevation, optical = paint(ground, forms, size.pixel_size, rng, Conditions())
    transform = transform_of(size)
    folder.mkdir(parents=True, exist_ok=True)
    optical_path, dem_path, truth_path = (folder / name for name in FILES)
    _write_optical(optical_path, optical, transform)
    _write_dem(dem_path, elevation, size, transform)
    slumps = [form.outline for form in forms if form.kind == SLUMP]
    _write_truth(truth_path, slumps, transform)
    return GeneratedScenes(optical_path, dem_path, truth_path, len(slumps), len(forms) - len(slumps))


def transform_of(size: SceneSize) -> Affine:
    """Upper left corner at the place, on a corner of the grid's tiles."""
    x, y = Transformer.from_crs(4326, SRID, always_xy=True).transform(PLACE_LON, PLACE_LAT)
    step = size.tile_size * size.pixel_size
    return from_origin(round(x / step) * step, round(y / step) * step, size.pixel_size, size.pixel_size)


def place(ground: Ground, size: SceneSize, rng: np.random.Generator) -> list[Landform]:
    """Slumps in swarms on slopes; look-alikes anywhere on land; none touches another."""
    smooth = ndimage.gaussian_filter(ground.elevation, 12)
    south, east = np.gradient(smooth, size.pixel_size)
    steepness = np.hypot(south, east)
    dry = ndimage.distance_transform_edt(~(ground.water | ground.bars))
    suitable = np.where(dry > 14, steepness, 0) ** 1.5
    swarms = 0.15 + np.clip(fractal(size.shape, rng, slope=3.2, longest=350), 0, None) ** 1.5
    tiles = size.columns * size.rows
    wanted = {SLUMP: round(1.25 * tiles), BARE_PATCH: round(0.35 * tiles), GREEN_BOWL: round(0.2 * tiles)}
    water = _outlines(ground.water)
    forms: list[Landform] = []
    taken: list[shapely.Geometry] = []
    for kind, count in wanted.items():
        weight = suitable * swarms if kind == SLUMP else (dry > 10).astype(float)
        spots = rng.choice(weight.size, size=count * 30, p=(weight / weight.sum()).ravel())
        placed = 0
        for spot in spots:
            row, column = divmod(int(spot), size.shape[1])
            if placed == count:
                break
            form = _form(kind, row, column, (float(east[row, column]), float(south[row, column])), water, size, rng)
            if _is_free(form, taken, size):
                forms.append(form)
                taken.append(form.outline)
                placed += 1
    return forms


def _form(
    kind: str,
    row: int,
    column: int,
    gradient: tuple[float, float],
    water: shapely.Geometry,
    size: SceneSize,
    rng: np.random.Generator,
) -> Landform:
    steep = max(float(np.hypot(*gradient)), 1e-6)
    downslope = (-gradient[0] / steep, -gradient[1] / steep)
    length = float(np.clip(rng.lognormal(np.log(95), 0.42), 45, 260)) / size.pixel_size
    center = (float(column), float(row))
    is_blob = kind == BARE_PATCH and rng.random() < 0.6  # the others have a slump's outline, too
    outline = blob_outline(center, length, rng) if is_blob else slump_outline(center, downslope, length, rng)
    outline = _on_land(outline, water)
    depth = float(np.clip(rng.normal(7.5, 1.8), 4, 12)) * float(np.clip(length * size.pixel_size / 110, 0.7, 1.3))
    return Landform(kind, outline, row, column, downslope, length, depth)


def _outlines(mask: Mask) -> shapely.Geometry:
    """The area of a mask, in pixel coordinates."""
    shapes = rasterio.features.shapes(mask.astype(np.uint8), mask=mask)
    area = shapely.union_all([shapely.geometry.shape(outline) for outline, _ in shapes]).simplify(0.7)
    shapely.prepare(area)
    return area


def _on_land(outline: shapely.Polygon, water: shapely.Geometry) -> shapely.Polygon:
    """What is above the water line; the largest part when the shore cuts it in two."""
    if not water.intersects(outline):
        return outline
    dry = outline.difference(water).buffer(-0.8).buffer(0.8)
    return max(getattr(dry, "geoms", [dry]), key=lambda part: part.area, default=outline)


def _is_free(form: Landform, taken: list[shapely.Geometry], size: SceneSize) -> bool:
    rows, columns = size.shape
    is_whole = form.outline.area * size.pixel_size**2 > 900 and form.outline.contains(
        shapely.Point(form.column, form.row)
    )
    if not is_whole or not shapely.box(4, 4, columns - 4, rows - 4).contains(form.outline):
        return False
    room = form.outline.buffer(4)
    return not any(room.intersects(other) for other in taken)


def _write_optical(path: Path, color: Grid, transform: Affine) -> None:
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 4, "nodata": 0, "crs": SRID, "transform": transform}
    raw = np.clip(np.round(color / REFLECTANCE_SCALE), 1, 65535).astype(np.uint16)
    _write(path, raw, profile, ("blue", "green", "red", "nir"))


def _write_dem(path: Path, elevation: Grid, size: SceneSize, transform: Affine) -> None:
    """At 4/3 of the pixel size, with a corner missing as where stereo matching failed."""
    coarse = ndimage.zoom(elevation, 0.75, order=1, grid_mode=True, mode="nearest")
    rows, columns = coarse.shape
    y, x = np.mgrid[:rows, :columns]
    coarse[(columns - x) + 1.3 * y < 0.16 * columns] = NODATA_DEM
    scaled = transform @ Affine.scale(size.shape[1] / columns, size.shape[0] / rows)
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": 1,
        "nodata": NODATA_DEM,
        "crs": SRID,
        "transform": scaled,
    }
    _write(path, coarse[None].astype(np.float32), profile, ("elevation",))


def _write(path: Path, data: NDArray[Any], profile: dict[str, Any], names: tuple[str, ...]) -> None:
    """A tiled GeoTIFF with overviews, in place only when complete."""
    partial = path.with_name(f"{path.stem}.partial.tif")
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2}
    if data.dtype.kind == "f":
        options["predictor"] = 3
    with rasterio.open(partial, "w", height=data.shape[1], width=data.shape[2], **profile, **options) as target:
        target.write(data)
        target.descriptions = names
        target.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    partial.replace(path)


def _write_truth(path: Path, outlines: list[shapely.Polygon], transform: Affine) -> None:
    project = Transformer.from_crs(SRID, 4326, always_xy=True).transform
    features = []
    for number, outline in enumerate(outlines, 1):
        xy = shapely.get_coordinates(outline)
        lon, lat = project(*(transform @ (xy[:, 0], xy[:, 1])))
        ring = [[round(float(x), 8), round(float(y), 8)] for x, y in zip(lon, lat, strict=True)]
        features.append(
            {
                "type": "Feature",
                "properties": {"id": number, "TrainClass": "Positive"},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
