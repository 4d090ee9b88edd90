"""How fast chips are read, beside the loop that a user would otherwise write.

`python -m benchmarks.chips` reads the same tiles of a generated scene in several ways and prints chips per second. The
naive loop opens the file and a WarpedVRT for every chip. Ways take turns, several rounds each, and the median counts.
Every way uses one thread, so chips per second of processor time is what a quiet machine gives, whatever else runs.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from benchmarks.database import throwaway
from benchmarks.scene import PIXEL, SIDE, SRID, write_scene

TILE = 128


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="scene size in pixels (default: %(default)s)")
    parser.add_argument("--tiles", type=int, default=300, help="tiles per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with throwaway() as folder:
        rows = measure(write_scene(folder / "scene.tif", side=options.side), options.tiles, options.rounds)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{options.side} x {options.side} px, 4 bands uint16 deflate; {options.tiles} tiles of {TILE} px; "
          f"median of {options.rounds} rounds")  # fmt: skip
    print(f"{'grid':<28}{'tiles':<10}{'way':<24}{'chips/s':>9}{'chips/CPU s':>13}{'ratio':>8}")
    for row in rows:
        print(f"{row['grid']:<28}{row['order']:<10}{row['way']:<24}{row['per_second']:>9.0f}"
              f"{row['per_cpu_second']:>13.0f}{row['ratio']:>8.2f}")  # fmt: skip


def measure(path: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    """Time every way on every grid and order of tiles."""
    from thawloop.catalog.services import define_grid, define_modality, register_scene

    modality = define_modality(
        "four", bands=["blue", "green", "red", "nir"], range_min=0, range_max=10_000, resampling="bilinear"
    )
    scene, _ = register_scene(str(path), modality=modality, acquired=date(2021, 7, 1))
    grids = {
        "EPSG:3413 (warped)": define_grid("polar", 3413, PIXEL, TILE),
        f"EPSG:{SRID} (scene's own CRS)": define_grid("utm", SRID, PIXEL, TILE),
    }
    rows = []
    for name, grid in grids.items():
        for order in ("in rows", "shuffled"):
            tiles = _tiles(grid, scene, count, shuffled=order == "shuffled")
            rows += _race(name, order, _ways(path, tiles, modality), len(tiles), rounds)
    return rows


def _tiles(grid: Any, scene: Any, count: int, *, shuffled: bool) -> list[Any]:
    from thawloop.catalog.models import Tile
    from thawloop.catalog.services import create_tiles, define_region

    region = define_region(f"all-{grid.name}", scene.footprint)
    create_tiles(grid, region, period="2021", period_start=date(2021, 1, 1), period_end=date(2021, 12, 31))
    tiles = list(Tile.objects.filter(grid=grid).select_related("grid").order_by("-row", "col"))
    start = max(0, len(tiles) // 2 - count // 2)
    if shuffled:
        random.Random(0).shuffle(tiles)
    return tiles[:count] if shuffled else tiles[start : start + count]


def _race(
    grid: str, order: str, ways: dict[str, Callable[[], object]], count: int, rounds: int
) -> list[dict[str, Any]]:
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            wall[way].append(time.perf_counter() - start)
            cpu[way].append(time.process_time() - start_cpu)
    speed = {way: count / statistics.median(taken) for way, taken in cpu.items()}
    return [
        {
            "grid": grid,
            "order": order,
            "way": way,
            "per_second": count / statistics.median(wall[way]),
            "per_cpu_second": speed[way],
            "ratio": speed[way] / speed["naive loop"],
        }
        for way in ways
    ]


def _ways(path: Path, tiles: list[Any], modality: Any) -> dict[str, Callable[[], object]]:
    from thawloop.catalog.chips import ChipReader, read_chip

    def naive() -> None:
        for tile in tiles:
            naive_chip(path, tile)

    def reader() -> None:
        with ChipReader([modality]) as chips:
            for _ in map(chips.read, tiles):
                pass

    def one_by_one() -> None:
        for tile in tiles:
            read_chip(tile, [modality])

    return {"naive loop": naive, "ChipReader": reader, "read_chip, one by one": one_by_one}


def naive_chip(path: Path, tile: Any) -> np.ndarray:
    """What one would write with rasterio: open, warp, read, mask."""
    size, pixel = tile.grid.tile_size, tile.grid.pixel_size
    side = size * pixel
    transform = Affine(pixel, 0, tile.col * side, 0, -pixel, (tile.row + 1) * side)
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file,
            crs=f"EPSG:{tile.grid.srid}",
            transform=transform,
            width=size,
            height=size,
            resampling=Resampling.bilinear,
        ) as vrt,
    ):
        return vrt.read(masked=True).astype(np.float32).filled(np.nan)


if __name__ == "__main__":
    main()
