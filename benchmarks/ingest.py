"""How long it takes to register a large scene and to make its tiles: `python -m benchmarks.ingest`."""

import argparse
import json
import resource
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from benchmarks.database import throwaway
from benchmarks.scene import PIXEL, SIDE, write_scene_apart


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="scene size in pixels (default: %(default)s)")
    parser.add_argument("--tile-size", type=int, default=128, help="tile size in pixels (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with throwaway() as folder:
        path = write_scene_apart(folder / "scene.tif", side=options.side)
        result = measure(str(path), options.tile_size)
        result["megabytes"] = round(path.stat().st_size / 1e6)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.side} x {options.side} px, 4 bands uint16, {result['megabytes']} MB")
    for name, value in result.items():
        print(f"{name.replace('_', ' '):<32}{value:>10.2f}" if isinstance(value, float) else f"{name:<32}{value:>10}")


def measure(uri: str, tile_size: int) -> dict[str, Any]:
    """Seconds of each step, tiles made, and the memory that the process had at most."""
    from thawloop.catalog.services import create_tiles, define_grid, define_modality, define_region, register_scene

    modality = define_modality("four", bands=["blue", "green", "red", "nir"], range_min=0, range_max=10_000)
    before = _peak_megabytes()
    (scene, _), register_seconds = _timed(lambda: register_scene(uri, modality=modality, acquired=date(2021, 7, 1)))
    grid = define_grid("polar", 3413, PIXEL, tile_size)
    region = define_region("everywhere", scene.footprint)
    period = {"period": "2021", "period_start": date(2021, 1, 1), "period_end": date(2021, 12, 31)}
    tiles, tile_seconds = _timed(lambda: create_tiles(grid, region, **period, min_coverage_by=modality))
    again, again_seconds = _timed(lambda: create_tiles(grid, region, **period, min_coverage_by=modality))
    return {
        "register_seconds": register_seconds,
        "tile_seconds": tile_seconds,
        "tiles": tiles,
        "tile_again_seconds": again_seconds,
        "tiles_again": again,
        "memory_grown_megabytes": round(_peak_megabytes() - before),
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, round(time.perf_counter() - start, 2)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
