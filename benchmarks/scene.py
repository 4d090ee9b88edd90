"""The scene that the raster benchmarks use: `python -m benchmarks.scene FILE SIDE`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

SIDE, BANDS, PIXEL = 10_000, 4, 3.0
SRID = 32608


def write_scene(path: Path, *, side: int = SIDE) -> Path:
    """Write a tiled GeoTIFF of `side` x `side` pixels, four uint16 bands, 3 m, in EPSG:32608, with an empty collar."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "count": BANDS, "dtype": "uint16", "nodata": 0, "crs": f"EPSG:{SRID}"}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2, "zlevel": 1}
    transform = from_origin(470_880, 7_550_025, PIXEL, PIXEL)
    with rasterio.open(path, "w", width=side, height=side, transform=transform, **profile, **layout) as file:
        columns = np.arange(side, dtype=np.float32)
        for top in range(0, side, 512):
            rows = np.arange(top, min(top + 512, side), dtype=np.float32)[:, None]
            base = 1500 + 600 * np.sin(columns / 90) + 500 * np.cos(rows / 70)
            strip = np.stack([base + 200 * band + rng.normal(0, 60, base.shape) for band in range(BANDS)])
            strip[:, (columns[None] + 0.2 * rows) < 0.05 * side] = 0
            file.write(strip.clip(0, 65535).astype(np.uint16), window=Window(0, top, side, len(rows)))
    return path


def write_scene_apart(path: Path, *, side: int = SIDE) -> Path:
    """`write_scene` in a process of its own, so that its memory does not count as the benchmark's."""
    subprocess.run([sys.executable, "-m", "benchmarks.scene", str(path), str(side)], check=True)
    return path


if __name__ == "__main__":
    write_scene(Path(sys.argv[1]), side=int(sys.argv[2]))
