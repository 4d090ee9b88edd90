"""Splitting a region into spatially separate train, validation and test parts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from django.contrib.gis.geos import Point as GeosPoint
from django.db import transaction
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Point, box
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.errors import AlreadyDefined, DefinitionRefused
from thawloop.catalog.geometry import as_multipolygon, grid_step, project, to_shapely
from thawloop.catalog.models import Region, TileGrid
from thawloop.catalog.services.places import define_region
from thawloop.catalog.services.tiles import MOST_TILES
from thawloop.catalog.wrapping import wrap_longitudes
from thawloop.core.services import audit

FRACTIONS: Mapping[str, float] = {"train": 0.6, "val": 0.15, "test": 0.25}


@dataclass(frozen=True)
class _Block:
    """A square of grid cells. cells: how many have their centre in the region; labels: how many points it holds."""

    col: int
    row: int
    cells: int
    labels: int


@transaction.atomic
def split_region(
    region: Region,
    grid: TileGrid,
    *,
    fractions: Mapping[str, float] = FRACTIONS,
    block_tiles: int = 4,
    seed: int = 0,
    weights: Sequence[Point | GeosPoint] | None = None,
) -> dict[str, Region]:
    """Split a region into child regions `<name>-<split>`, each made of whole square blocks of grid cells.

    Blocks keep neighbouring tiles, which look alike, on the same side of the split. Where the region has too few
    blocks for every split to get one (and one with a label, if labels are given), blocks are halved until it can.

    Args:
        region: The region to split.
        grid: The grid its tiles will be of. With an overlap, tiles at the seams of blocks share pixels.
        fractions: Share of each split; they must sum to 1.
        block_tiles: Side of a block in tiles.
        seed: Chooses among equally good splits; the same seed gives the same split.
        weights: Points (EPSG:4326) where labels are: shares then hold for labels as well as for area.

    Returns:
        The child region of each split. Running it again with the same arguments returns the same regions.

    Raises:
        DefinitionRefused: The fractions are wrong, or the region holds fewer cells than there are splits.
        AlreadyDefined: A child's name is taken by another outline.
    """
    _check_fractions(fractions)
    plane = _on_plane(region, grid)
    cells = _cells_inside(plane, region, grid)
    if len(cells) < len(fractions):
        raise DefinitionRefused(
            f"Region `{region.name}` holds the centres of {len(cells)} tiles of grid `{grid.name}`, too few for "
            f"{len(fractions)} splits: enlarge the region or use smaller tiles."
        )
    labels = _label_cells(weights or [], grid)
    size, blocks = _blocks(cells, labels, block_tiles, len(fractions))
    chosen = _distribute(blocks, fractions, seed)
    return {split: _child(region, grid, plane, split, chosen[split], size, seed) for split in fractions}


def _check_fractions(fractions: Mapping[str, float]) -> None:
    if not fractions or any(share <= 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1):
        said = ", ".join(f"{split} {share:g}" for split, share in fractions.items()) or "nothing"
        raise DefinitionRefused(f"The shares of the splits must be positive and sum to 1, not {said}.")


def _on_plane(region: Region, grid: TileGrid) -> BaseGeometry:
    """The region on the grid's plane, its edges densified as `create_tiles` does."""
    west, south, east, north = region.geometry.extent
    dense = shapely.segmentize(to_shapely(region.geometry), max(0.02, max(east - west, north - south) / 2000))
    return shapely.union_all(shapely.get_parts(project(dense, 4326, grid.srid)))


def _cells_inside(plane: BaseGeometry, region: Region, grid: TileGrid) -> NDArray[np.int64]:
    """(column, row) of the cells whose centre the region holds, [N, 2]."""
    step, half = grid_step(grid), grid.tile_size * grid.pixel_size / 2
    expected = plane.area / step**2
    if expected > MOST_TILES:
        raise DefinitionRefused(f"Region `{region.name}` holds about {round(expected):,} cells: split a smaller one.")
    found: list[NDArray[np.int64]] = []
    left, bottom, right, top = plane.bounds
    columns = np.arange(math.ceil((left - half) / step), math.floor((right - half) / step) + 1)
    shapely.prepare(plane)
    for row in range(math.ceil((bottom - half) / step), math.floor((top - half) / step) + 1):
        y = np.full(len(columns), row * step + half)
        inside = columns[shapely.intersects_xy(plane, columns * step + half, y)]
        found.append(np.column_stack([inside, np.full(len(inside), row)]))
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _label_cells(weights: Sequence[Point | GeosPoint], grid: TileGrid) -> NDArray[np.int64]:
    """(column, row) of the cell around whose centre each label lies, [N, 2]."""
    if not weights:
        return np.empty((0, 2), dtype=np.int64)
    step, half = grid_step(grid), grid.tile_size * grid.pixel_size / 2
    points = project(shapely.MultiPoint([(point.x, point.y) for point in weights]), 4326, grid.srid)
    corners = shapely.get_coordinates(points) - (half - step / 2)
    cells: NDArray[np.int64] = np.floor(corners / step).astype(np.int64)
    return cells


def _blocks(
    cells: NDArray[np.int64], labels: NDArray[np.int64], block_tiles: int, splits: int
) -> tuple[int, list[_Block]]:
    """Group cells into blocks, halving their side until every split can have one, with a label if there are any."""
    inside = labels[[tuple(label) in {tuple(cell) for cell in cells} for label in labels]] if len(labels) else labels
    size = max(1, block_tiles)
    while True:
        where, counts = np.unique(cells // size, axis=0, return_counts=True)
        held = [int((inside // size == block).all(axis=1).sum()) if len(inside) else 0 for block in where]
        blocks = [_Block(int(col), int(row), int(n), m) for (col, row), n, m in zip(where, counts, held, strict=True)]
        enough = len(blocks) >= 2 * splits and (not any(held) or np.count_nonzero(held) >= splits)
        if enough or size == 1:
            return size, blocks
        size //= 2


def _distribute(blocks: list[_Block], fractions: Mapping[str, float], seed: int) -> dict[str, list[_Block]]:
    """Give each block to the split that lacks most: labelled blocks first, by labels; then the others, by area."""
    order = np.random.default_rng(seed).permutation(len(blocks))
    queue = sorted((blocks[i] for i in order), key=lambda block: -block.labels)
    total_cells, total_labels = sum(b.cells for b in blocks), sum(b.labels for b in blocks)
    chosen: dict[str, list[_Block]] = {split: [] for split in fractions}
    for block in queue:
        part, total = ("labels", total_labels) if block.labels else ("cells", total_cells)

        def lack(split: str, part: str = part, total: int = total) -> tuple[bool, float]:
            have = sum(getattr(b, part) for b in chosen[split]) / total
            return not chosen[split], 1 - have / fractions[split]

        chosen[max(fractions, key=lack)].append(block)
    return chosen


def _child(
    region: Region, grid: TileGrid, plane: BaseGeometry, split: str, blocks: list[_Block], size: int, seed: int
) -> Region:
    name = f"{region.name}-{split}"
    if len(name) > 80:
        raise DefinitionRefused(f"The name `{name}` is longer than 80 characters: shorten the region's.")
    step, rim = grid_step(grid), (grid.tile_size * grid.pixel_size - grid_step(grid)) / 2
    squares = [
        box(
            b.col * size * step + rim,
            b.row * size * step + rim,
            (b.col + 1) * size * step + rim,
            (b.row + 1) * size * step + rim,
        )
        for b in blocks
    ]
    area = shapely.segmentize(shapely.union_all(squares).intersection(plane), step)
    outline = as_multipolygon(shapely.make_valid(wrap_longitudes(project(area, grid.srid, 4326))))
    existing = Region.objects.filter(name=name).first()
    if existing is not None:
        _check_same(existing, outline)
        return existing
    child = define_region(name, outline, title=f"{region.title or region.name} ({split})", parent=region)
    audit("catalog.split_region", child, after={"grid": grid.name, "blocks": len(blocks), "side": size, "seed": seed})
    return child


def _check_same(existing: Region, outline: MultiPolygon) -> None:
    """Equal up to rounding: outlines are compared by the area in which they differ."""
    different = to_shapely(existing.geometry).symmetric_difference(outline).area
    if different > 1e-6 * outline.area:
        raise AlreadyDefined(
            f"Region `{existing.name}` is already defined with another outline (another grid, seed or share of "
            "splits?): give the region to split another name."
        )
