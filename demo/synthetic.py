"""A dataset directory with a known answer, made from generated scenes: what detectors and fusions are compared on.

Each split is a scene of its own, a hundred kilometres from the others. The directory's contract is described in
`ml_backend/detector/dataset.py`.
"""

import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from contracts.dataset import ANNOTATIONS_FOLDER, DATASET_FILE, SPLITS, annotation_file, chip_folder
from demo.landforms import SLUMP, Landform
from demo.painting import paint
from demo.recipe import FROM_ELEVATION, Recipe
from demo.scenes import SRID, SceneSize, place, transform_of
from demo.terrain import Grid, make_ground
from thawloop.catalog.builtin import BUILTIN
from thawloop.catalog.chips import write_chip
from thawloop.catalog.terrain import DEFAULT_RADIUS_M, relative_elevation
from thawloop.core.errors import Refused
from thawloop.releases.dataset.coco import TileLabel, annotation_of
from thawloop.releases.dataset.statistics import BandStatistics

APART_PIXELS = 32_768  # between the splits' scenes
TILE_METRES = 320.0  # a tile shows the same ground whatever its pixels: a slump or two

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class SplitScene:
    """The pixels of a split, all its tiles in one picture.

    Attributes:
        arrays: Per modality float32 [C, H, W].
        forms: Slumps and look-alikes, in pixels.
        transform: Pixel to EPSG:3413.
    """

    size: SceneSize
    arrays: Mapping[str, Grid]
    forms: list[Landform]
    transform: Affine


def generate_dataset(folder: Path, recipe: Recipe, report: Report | None = None) -> dict[str, dict[str, int]]:
    """Write a dataset directory, completely or not at all.

    Args:
        folder: Where; it must not exist, or be empty.
        recipe: What.
        report: Called with a fraction 0-1 and a message.

    Returns:
        Per split: tiles, empty tiles, instances, split slumps, look-alikes, tiles without elevation.

    Raises:
        Refused: the folder holds something or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder} exists already: name another folder, or remove it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise Refused(f"{folder} cannot be written ({error.strerror}): choose another place.") from error
    try:
        counts = _Writer(partial, recipe).write(report or _no_progress)
        partial.chmod(0o755)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def make_split(recipe: Recipe, split: str) -> SplitScene:
    """The scene of a split, with room for its tiles."""
    number = SPLITS.index(split)
    rng = np.random.default_rng((recipe.seed, number))
    count = recipe.tiles[split]
    columns = math.ceil(math.sqrt(count))
    size = SceneSize(columns, math.ceil(count / columns), recipe.tile_size, TILE_METRES / recipe.tile_size)
    ground = make_ground(size.shape, size.pixel_size, rng)
    forms = [
        replace(form, is_split=form.kind == SLUMP and rng.random() < recipe.signal_split)
        for form in place(ground, size, rng)
    ]
    true_elevation, color = paint(ground, forms, size.pixel_size, rng, recipe.conditions(split))
    worse = recipe.dem_shift if split == "test" else 0.0
    error = 5 * worse + rng.normal(0, recipe.dem_noise + worse, true_elevation.shape)
    elevation = (true_elevation + error).astype(np.float32)
    arrays = {name: _pixels(name, color, elevation, size) for name in recipe.modalities}
    if recipe.noise:
        real = arrays[recipe.noise]
        mean, spread = (np.asarray(f(real, axis=(1, 2), keepdims=True)) for f in (np.mean, np.std))
        arrays[recipe.noise] = (mean + spread * rng.standard_normal(real.shape)).astype(np.float32)
    return SplitScene(size, arrays, forms, transform_of(size) @ Affine.translation(0, number * APART_PIXELS))


def _pixels(name: str, color: Grid, elevation: Grid, size: SceneSize) -> Grid:
    """One modality, float32 [C, H, W], from reflectance of blue, green, red, nir and elevation."""
    if name == "rgb":
        return color[[2, 1, 0]]
    if name == "nir":
        return color[3:]
    if name == "ndvi":
        return ((color[3:] - color[2:3]) / (color[3:] + color[2:3])).astype(np.float32)
    if name == "dem":
        return elevation[None]
    radius = math.ceil(DEFAULT_RADIUS_M / size.pixel_size)
    return relative_elevation(elevation, radius, radius)[None]


class _Writer:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe
        self.statistics = {name: BandStatistics(len(BUILTIN[name]["bands"])) for name in recipe.modalities}

    def write(self, report: Report) -> dict[str, dict[str, int]]:
        for name in self.recipe.modalities:
            chip_folder(self.folder, name).mkdir(parents=True)
        (self.folder / ANNOTATIONS_FOLDER).mkdir()
        counts: dict[str, dict[str, int]] = {}
        for number, split in enumerate(SPLITS):
            report(number / len(SPLITS), f"{split}: ground, slumps and look-alikes")
            counts[split] = self._write_split(split, make_split(self.recipe, split))
        _write_json(self.folder / DATASET_FILE, self._dataset())
        return counts

    def _write_split(self, split: str, scene: SplitScene) -> dict[str, int]:
        lacks = self._without_elevation(split)
        tree = shapely.STRtree([form.outline for form in scene.forms])
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        tally: Counter[str] = Counter(dict.fromkeys(("tiles", "empty", "instances", "signal_split", "look_alikes"), 0))
        for number, (column, row) in enumerate(_cells(scene.size, self.recipe.tiles[split])):
            name = f"{split}-c{column:03d}-r{row:03d}.tif"
            is_missing = number in lacks
            self._write_chips(split, scene, column, row, name, is_missing)
            on_tile = [scene.forms[index] for index in sorted(tree.query(_square(column, row, scene.size)))]
            found = [entry for form in on_tile if (entry := _annotation(form, column, row, scene.size)) is not None]
            look_alikes = sum(form.kind != SLUMP for form in on_tile)
            annotations += [{"id": len(annotations) + n, "image_id": number + 1, **e} for n, e in enumerate(found, 1)]
            images.append(
                {
                    "id": number + 1,
                    "file_name": name,
                    "width": scene.size.tile_size,
                    "height": scene.size.tile_size,
                    "region": f"{split}-{'west' if column < scene.size.columns / 2 else 'east'}",
                    "look_alikes": look_alikes,
                }
            )
            tally.update(
                tiles=1,
                empty=not found,
                instances=len(found),
                signal_split=sum(entry["signal_split"] for entry in found),
                look_alikes=look_alikes,
                without_elevation=is_missing,
            )
        categories = [{"id": 1, "name": "RTS"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        _write_json(annotation_file(self.folder, split), content)
        return dict(tally)

    def _without_elevation(self, split: str) -> set[int]:
        """Numbers of the tiles that lack it: exactly the share asked for."""
        rng = np.random.default_rng((self.recipe.seed, SPLITS.index(split), 1))
        count = self.recipe.tiles[split]
        return set(rng.permutation(count)[: round(self.recipe.missing_dem * count)].tolist())

    def _write_chips(self, split: str, scene: SplitScene, column: int, row: int, name: str, is_missing: bool) -> None:
        size = scene.size.tile_size
        transform = scene.transform @ Affine.translation(column * size, row * size)
        for modality, array in scene.arrays.items():
            if is_missing and modality in FROM_ELEVATION:
                continue
            chip = np.ascontiguousarray(array[:, row * size : (row + 1) * size, column * size : (column + 1) * size])
            valid = np.asarray(np.isfinite(chip).all(axis=0))
            write_chip(chip_folder(self.folder, modality) / name, chip, valid, transform, CRS.from_epsg(SRID))
            if split == "train":
                self.statistics[modality].add(chip, valid)

    def _dataset(self) -> dict[str, Any]:
        modalities = []
        for position, name in enumerate(self.recipe.modalities):
            about = BUILTIN[name]
            limits = [about["range_min"], about["range_max"]]
            mean, deviation = self.statistics[name].summary(*limits)
            modalities.append(
                {
                    "name": name,
                    "bands": about["bands"],
                    "range": limits,
                    "unit": about.get("unit", ""),
                    "nodata": None,
                    "anchor": position == 0,
                    "mean": mean,
                    "std": deviation,
                }
            )
        size = self.recipe.tile_size
        return {
            "name": "generated",
            "version": "1.0.0",
            "classes": ["RTS"],
            "modalities": modalities,
            "grid": {"srid": SRID, "pixel_size": TILE_METRES / size, "tile_size": size, "overlap": 0},
            "provenance": {"generator": "manage.py generate_dataset", "recipe": asdict(self.recipe)},
        }


def _annotation(form: Landform, column: int, row: int, size: SceneSize) -> dict[str, Any] | None:
    """The COCO annotation of a slump on a tile; None for look-alikes and for what only touches the tile."""
    if form.kind != SLUMP:
        return None
    shape = shapely.affinity.translate(form.outline, -column * size.tile_size, -row * size.tile_size)
    area = form.outline.area * size.pixel_size**2
    found = annotation_of(TileLabel(shape, 1, f"{form.column}-{form.row}", 1, area), size=size.tile_size)
    return None if found is None else found | {"signal_split": form.is_split}


def _cells(size: SceneSize, count: int) -> Iterator[tuple[int, int]]:
    """Column and row of the first so many tiles, row by row."""
    for number in range(count):
        row, column = divmod(number, size.columns)
        yield column, row


def _square(column: int, row: int, size: SceneSize) -> shapely.Polygon:
    side = size.tile_size
    return shapely.box(column * side, row * side, (column + 1) * side, (row + 1) * side)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, allow_nan=False, indent=1) + "\n")


def _no_progress(fraction: float, message: str) -> None:
    """Report no progress."""
