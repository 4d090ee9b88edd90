"""How much memory predicting a raster takes, and whether every object on it is found once.

    python -m benchmarks.detector_rasters [--sides 7500 15000 30000] [--work DIR]

A raster of numbered discs of 12 pixels' radius, one every 400 pixels, is predicted in windows of 512 with 128 shared,
each side in a process of its own. The network is replaced by one that finds what it is shown at once: what is measured
is reading, keeping, joining, suppressing and writing (GeoPackage and GeoJSON), not the network. The peak counts the
whole process, some 600 MB of which are torch and its libraries.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEP, RADIUS, BLOCK = 400, 12, 256


def make_raster(file: Path, side: int) -> int:
    """Write the discs; how many."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    centres = np.arange(STEP // 2, side, STEP)
    profile: dict[str, Any] = {"count": 1, "height": side, "width": side, "dtype": "uint16", "crs": "EPSG:3413"}
    tiling = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 1}
    place = from_origin(-2_400_000, -500_000, 3, 3)
    with rasterio.open(file, "w", driver="GTiff", transform=place, BIGTIFF="YES", **profile, **tiling) as raster:
        for top in range(0, side, BLOCK):
            rows = min(BLOCK, side - top)
            ids = np.zeros((rows, side), dtype=np.uint16)
            for row in np.flatnonzero((centres + RADIUS >= top) & (centres - RADIUS < top + rows)):
                for column, x in enumerate(centres):
                    left = max(x - RADIUS, 0)
                    part = ids[:, left : x + RADIUS + 1]
                    dy, dx = np.ogrid[top : top + rows, left : left + part.shape[1]]
                    part[(dx - x) ** 2 + (dy - centres[row]) ** 2 <= RADIUS**2] = 1 + row * len(centres) + column
            raster.write(ids, 1, window=rasterio.windows.Window(0, top, side, rows))
    return len(centres) ** 2


def quick_network(model: Any, tiles: Any, symmetries: Any) -> Any:
    """Finds every number in a window, whole, at once."""
    import numpy as np
    import torch

    found = []
    for tensor, _ in tiles:
        ids = tensor[0].numpy()
        numbers = np.unique(ids[ids > 0])
        count = len(numbers)
        found.append(
            {
                "masks": torch.from_numpy(ids[None] == numbers[:, None, None]),
                "scores": torch.full((count,), 0.9),
                "labels": torch.zeros(count, dtype=torch.int64),
                "stage_scores": torch.full((count, 3), 0.9),
                "stage_boxes": torch.zeros(count, 3, 4),
                "mask_entropy": torch.full((count,), 0.1),
                "class_entropy": torch.full((count,), 0.1),
            }
        )
    return found, np.ones((len(tiles), 2), dtype=np.float32)


def predict(file: Path, out: Path) -> dict[str, Any]:
    """Predict one raster in this process."""
    import torch
    from torch import nn

    from ml_backend.detector import Detector, DetectorConfig, ModalitySpec
    from ml_backend.detector.inference import network
    from ml_backend.detector.inference.journal import Journal
    from ml_backend.detector.inference.outputs import write_geojson, write_geopackage
    from ml_backend.detector.inference.rasters import RasterStack
    from ml_backend.detector.inference.scanning import Source, collect_detections, scan

    network.detect = quick_network  # type: ignore[assignment]
    ids = ModalitySpec("ids", ("id",), mean=(0.0,), std=(1.0,))
    detector = Detector(nn.Identity(), DetectorConfig(), ("disc",), (ids,), torch.device("cpu"))
    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stack = RasterStack({"ids": file}, [ids])
    sources = [Source(file.name, (file,), stack, stack.georeference)]
    assert stack.georeference is not None
    with Journal(out / "journal", {}) as journal:
        scan(detector, sources, journal, window=512, overlap=128, progress=lambda share, text: None)
        scanned = time.perf_counter() - started
        collect_detections(
            detector, sources, journal, score_threshold=0.05, min_pixels=10, max_overlap=None, tolerance=0.5
        )
        kept = (out / "journal").stat().st_size
        write_geopackage(
            out / "out.gpkg",
            ((file.name, stack.georeference, find) for find in journal.detections(0)),
            stack.georeference.crs,
        )
        write_geojson(out / "out.geojson", ((file.name, stack.georeference, find) for find in journal.detections(0)))
        found = journal.count()
    return {
        "found": found,
        "before_mb": before / 1024,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "journal_mb": kept / 1e6,
        "scanning_s": scanned,
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    """Make the rasters, predict each in a process of its own, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[7500, 15000, 30000], metavar="PX")
    parser.add_argument("--only", nargs=2, type=Path, metavar=("RASTER", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(predict(*options.only)))
        return
    print("| pixels | as float32, MB | placed | found | peak MB | before, MB | journal, MB | scanning, s | all, s |")
    print("|" + "---|" * 9)
    for side in options.sides:
        with tempfile.TemporaryDirectory(prefix="thawloop-benchmark-") as folder:
            file = Path(folder) / "ids.tif"
            placed = make_raster(file, side)
            command = [sys.executable, "-m", "benchmarks.detector_rasters", "--only", str(file), folder]
            row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        cells = [f"{side:,} x {side:,}", f"{side**2 * 4 / 1e6:,.0f}", placed, row["found"]]
        cells += [f"{row[name]:,.0f}" for name in ("peak_mb", "before_mb", "journal_mb", "scanning_s", "seconds")]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
