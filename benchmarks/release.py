"""How fast labels are imported and a release is frozen, written and checked, against the loop one would write first.

    python benchmarks/release.py [--tiles 1024] [--labels 2000] [--size 128]

Makes a scene of its own (RGB and elevation, 3 m) in a throwaway PostGIS, labels every tile through an import, and
prints tiles per second. The naive loop opens both rasters anew for every tile, reprojects, looks at every label to
find those on the tile, writes GeoTIFFs, and hashes everything at the end.
"""

import argparse
import hashlib
import json
import math
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.warp import Resampling, reproject
from shapely.geometry import box, mapping

from benchmarks.database import throwaway

SRID, PIXEL, COL, ROW = 3413, 3.0, -2_000, 1_000
PERIOD = {"period": "2021", "period_start": date(2021, 6, 1), "period_end": date(2021, 9, 30)}


def make_rasters(root: Path, side: int, size: int) -> None:
    """RGB and elevation over `side` x `side` tiles."""
    step, width = size * PIXEL, side * size
    transform = Affine(PIXEL, 0, COL * step, 0, -PIXEL, (ROW + side) * step)
    random = np.random.default_rng(0)
    for name, bands, dtype in (("rgb", 3, "uint16"), ("dem", 1, "float32")):
        options = {"tiled": True, "compress": "deflate", "blockxsize": 256, "blockysize": 256}
        with rasterio.open(
            root / f"{name}.tif", "w", "GTiff", width, width, bands, f"EPSG:{SRID}", transform, dtype, **options
        ) as file:
            for row in range(0, width, 256):
                height = min(256, width - row)
                pixels = random.integers(0, 3000, (bands, height, width)).astype(dtype)
                file.write(pixels, window=rasterio.windows.Window(0, row, width, height))


def make_campaign(root: Path, side: int, size: int) -> Any:
    """A campaign with a train half and a test half."""
    from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion, LandformClass
    from thawloop.catalog import services as catalog
    from thawloop.catalog.geometry import project
    from thawloop.catalog.scene_options import SceneOptions

    terms = {"acquired": date(2021, 7, 1), "options": SceneOptions(licence="generated")}
    rgb = catalog.define_modality("rgb", bands=["red", "green", "blue"], range_min=0, range_max=3000)
    dem = catalog.define_modality("dem", bands=["elevation"], range_min=0, range_max=3000, is_static=True)
    for modality in (rgb, dem):
        catalog.register_scene(str(root / f"{modality.name}.tif"), modality=modality, **terms)
    grid = catalog.define_grid("bench", SRID, PIXEL, size)
    campaign = Campaign.objects.create(name="bench", title="Benchmark", grid=grid, **PERIOD)
    campaign.classes.add(LandformClass.objects.get_or_create(name="RTS")[0])
    for position, modality in enumerate((rgb, dem)):
        CampaignModality.objects.create(
            campaign=campaign, modality=modality, position=position, is_anchor=position == 0
        )
    step, half = size * PIXEL, side // 2
    for split, first, last in (("train", 0, half), ("test", half, side)):
        left, right = (COL + first) * step, (COL + last) * step
        shape = box(left, ROW * step, right, (ROW + side) * step)
        region = catalog.define_region(f"bench-{split}", project(shape.segmentize(step), SRID, 4326))
        CampaignRegion.objects.create(campaign=campaign, region=region, split=split)
        catalog.create_tiles(grid, region, **PERIOD)
    return campaign


def make_labels(path: Path, count: int, side: int, size: int) -> None:
    """Blobs of 20 to 120 m radius anywhere in the scene, every tenth with a hole."""
    from thawloop.catalog.geometry import project

    random = np.random.default_rng(1)
    step, features = size * PIXEL, []
    for number in range(count):
        x, y = (np.array([COL, ROW]) + random.random(2) * side) * step
        blob = shapely.Point(x, y).buffer(random.uniform(20, 120))
        blob = blob.difference(shapely.Point(x, y).buffer(8)) if number % 10 == 0 else blob
        geometry = mapping(project(blob, SRID, 4326))
        features.append({"type": "Feature", "properties": {"n": number}, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def naive_loop(root: Path, out: Path, tiles: list[Any], labels: list[Any]) -> None:
    """What one would write first."""
    from thawloop.catalog.geometry import project, tile_transform

    out.mkdir()
    moved = [project(label, 4326, SRID) for label in labels]
    found = []
    for tile in tiles:
        transform, size = tile_transform(tile), tile.grid.tile_size
        left, top = transform.c, transform.f
        square = box(left, top - size * PIXEL, left + size * PIXEL, top)
        for name in ("rgb", "dem"):
            with rasterio.open(root / f"{name}.tif") as scene:
                pixels = np.full((scene.count, size, size), np.nan, np.float32)
                reproject(
                    rasterio.band(scene, scene.indexes),
                    pixels,
                    dst_transform=transform,
                    dst_crs=f"EPSG:{SRID}",
                    dst_nodata=np.nan,
                    resampling=Resampling.bilinear,
                )
            path = out / f"{tile.key}_{name}.tif"
            with rasterio.open(
                path, "w", "GTiff", size, size, len(pixels), f"EPSG:{SRID}", transform, "float32", compress="deflate"
            ) as file:
                file.write(pixels)
        found += [mapping(label.intersection(square)) for label in moved if label.intersects(square)]
    (out / "labels.json").write_text(json.dumps(found))
    for path in out.iterdir():
        hashlib.sha256(path.read_bytes()).hexdigest()


def measure(root: Path, tiles: int, labels: int, size: int) -> list[tuple[str, float, float, int, str]]:
    """Rows of (what, seconds, seconds of processor time, how many, of what)."""
    from labeling.selectors import current_labels
    from thawloop.catalog.geometry import to_shapely
    from thawloop.catalog.models import Tile
    from thawloop.releases.services import export, freeze_release, import_labels, materialise, verify

    side = max(2, round(math.sqrt(tiles)))
    make_rasters(root, side, size)
    campaign = make_campaign(root, side, size)
    make_labels(root / "labels.geojson", labels, side, size)
    rows = []

    def timed(what: str, count: int, unit: str, call: Any) -> Any:
        start, worked = time.perf_counter(), time.process_time()
        result = call()
        rows.append((what, time.perf_counter() - start, time.process_time() - worked, count, unit))
        return result

    step = size * PIXEL
    everything = box(COL * step - 99, ROW * step - 99, (COL + side) * step + 99, (ROW + side) * step + 99)
    from thawloop.catalog.geometry import project

    covered = project(everything.segmentize(step), SRID, 4326)
    timed("import", labels, "labels", lambda: import_labels(campaign, root / "labels.geojson", coverage=covered))
    release = timed("freeze", side * side, "tiles", lambda: freeze_release(campaign))
    timed("materialise", side * side, "tiles", lambda: materialise(release))
    assert timed("verify", side * side, "tiles", lambda: verify(release)) == []
    timed("export gpkg", labels, "labels", lambda: export(release, "gpkg", root / "labels.gpkg"))
    # The loop is slow: a part of the tiles is enough to know its pace.
    part = list(Tile.objects.select_related("grid").order_by("?")[: min(side * side, 200)])
    shapes = [to_shapely(revision.geometry) for revision in current_labels(campaign)]
    timed("naive loop", len(part), "tiles", lambda: naive_loop(root, root / "naive", part, shapes))
    return rows


def main() -> None:
    """Start a throwaway PostGIS, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument("--labels", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    with throwaway() as root:
        rows = measure(root, options.tiles, options.labels, options.size)
    print(f"{'what':<14}{'seconds':>10}{'cpu s':>10}{'per second':>14}")
    for what, seconds, worked, count, unit in rows:
        print(f"{what:<14}{seconds:>10.2f}{worked:>10.2f}{count / seconds:>10,.0f} {unit}")
    # On a busy machine only processor time compares fairly.
    for number, clock in ((1, "time"), (2, "processor time")):
        pace = {row[0]: row[number] / row[3] for row in rows}
        print(f"naive loop / materialise, {clock} per tile: {pace['naive loop'] / pace['materialise']:.1f}")


if __name__ == "__main__":
    main()
