"""How fast label files are imported and releases exported, against ogr2ogr doing the same in the same run.

    python benchmarks/vectors.py [--labels 20000 100000]

Makes inventories of blobs in a throwaway PostGIS and imports them one after the other (the second into a campaign that
holds the first), freezes them, and exports them as GeoPackage and GeoJSON. The rival is `ogr2ogr` of Debian's gdal-bin:
the same labels from the same database into the grid's system, once with their outlines and names alone, once with all
that an export says (area, perimeter, region, split). Without it, `pyogrio.write` of shapes that are in memory already
stands in, and the table says so.
"""

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely

from benchmarks.database import throwaway

SRID, PIXEL, SIZE, SIDE = 3413, 3.0, 256, 60
COL, ROW = -2_000, 1_000
PERIOD = {"period": "2021", "period_start": date(2021, 6, 1), "period_end": date(2021, 9, 30)}
STEP = SIZE * PIXEL
RELEASED = """
    SELECT label.id::text AS label, revision.number, revision.author_name, {more} revision.geometry
    FROM releases_releaselabel held JOIN labeling_labelrevision revision ON revision.id = held.revision_id
    JOIN labeling_label label ON label.id = revision.label_id WHERE held.release_id = {release}
"""

ALL_COLUMNS = """
    (SELECT name FROM campaigns_landformclass WHERE id = revision.landform_class_id) AS class, revision.created::text,
    ST_Area(revision.geometry::geography) AS area_m2, ST_Perimeter(revision.geometry::geography) AS perimeter_m,
    (SELECT string_agg(DISTINCT region.name, ', ') FROM releases_releasetile member
        JOIN catalog_tile tile ON tile.id = member.tile_id JOIN catalog_region region ON region.id = tile.region_id
        WHERE member.release_id = {release} AND ST_Intersects(tile.geometry, revision.geometry)) AS region,
    (SELECT string_agg(DISTINCT member.split, ', ') FROM releases_releasetile member
        JOIN catalog_tile tile ON tile.id = member.tile_id
        WHERE member.release_id = {release} AND ST_Intersects(tile.geometry, revision.geometry)) AS split,
"""


def make_campaign() -> Any:
    """A campaign of 60 x 60 tiles, a train half and a test half, without rasters."""
    from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion, LandformClass
    from thawloop.catalog import services as catalog
    from thawloop.catalog.geometry import project, to_geos
    from thawloop.catalog.models import Tile

    grid = catalog.define_grid("bench", SRID, PIXEL, SIZE)
    campaign = Campaign.objects.create(name="bench", title="Benchmark", grid=grid, **PERIOD)
    campaign.classes.add(LandformClass.objects.get_or_create(name="RTS")[0])
    rgb = catalog.define_modality("rgb", bands=["red", "green", "blue"], range_min=0, range_max=3000)
    CampaignModality.objects.create(campaign=campaign, modality=rgb, position=0, is_anchor=True)
    for split, first, last in (("train", 0, SIDE // 2), ("test", SIDE // 2, SIDE)):
        shape = shapely.box((COL + first) * STEP, ROW * STEP, (COL + last) * STEP, (ROW + SIDE) * STEP)
        region = catalog.define_region(f"bench-{split}", project(shape.segmentize(STEP), SRID, 4326))
        CampaignRegion.objects.create(campaign=campaign, region=region, split=split)
        cells = [(col, row) for col in range(COL + first, COL + last) for row in range(ROW, ROW + SIDE)]
        squares = [shapely.box(col * STEP, row * STEP, (col + 1) * STEP, (row + 1) * STEP) for col, row in cells]
        Tile.objects.bulk_create(
            Tile(
                key=f"bench-{col}-{row}", grid=grid, region=region, col=col, row=row,
                geometry=to_geos(project(square, SRID, 4326)), **PERIOD,
            )
            for (col, row), square in zip(cells, squares, strict=True)
        )  # fmt: skip
    return campaign


def make_labels(path: Path, count: int, seed: int) -> None:
    """Blobs of 33 vertices and 10 to 60 m radius anywhere in the campaign."""
    random = np.random.default_rng(seed)
    middles = (np.array([COL, ROW]) + random.random((count, 2)) * SIDE) * STEP
    blobs = shapely.buffer(shapely.points(middles), random.uniform(10, 60, count), quad_segs=8)
    number = np.arange(count)
    options = {"driver": "GPKG", "geometry_type": "Polygon", "crs": f"EPSG:{SRID}"}
    pyogrio.raw.write(path, shapely.to_wkb(blobs), [number], ["number"], layer="slumps", **options)


def rival(release: int, target: Path, driver: str, more: str = "") -> tuple[str, Callable[[], object]]:
    """What one would use otherwise to get a release's labels into a file, `more` columns of them."""
    from django.db import connection

    from labeling.models import LabelRevision

    if ogr2ogr := shutil.which("ogr2ogr"):
        parts = connection.get_connection_params()
        source = "PG:" + " ".join(
            f"{key}={parts[key]}" for key in ("host", "port", "user", "dbname", "password") if parts.get(key)
        )
        system = f"EPSG:{SRID}" if driver == "GPKG" else "EPSG:4326"
        command = [
            ogr2ogr,
            "-f",
            driver,
            str(target),
            source,
            "-sql",
            RELEASED.format(release=release, more=more.format(release=release)),
            "-t_srs",
            system,
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PROJ", "GDAL"))}
        return "ogr2ogr", lambda: subprocess.run([*command, "-nln", "labels"], check=True, env=environment)
    held = LabelRevision.objects.filter(releaselabel__release=release)
    wkb = np.array([bytes(shape.wkb) for shape in held.values_list("geometry", flat=True)], dtype=object)
    options = {"driver": driver, "geometry_type": "MultiPolygon", "crs": "EPSG:4326"}
    return "pyogrio.write", lambda: pyogrio.raw.write(target, wkb, [], [], layer="labels", **options)


def measure(root: Path, counts: list[int]) -> None:
    """Print a row for each step and size."""
    from thawloop.releases.services import export, freeze_release, import_labels

    campaign = make_campaign()
    print(f"{'what':<28}{'labels':>10}{'seconds':>10}{'ms each':>10}{'rival':>10}{'ratio':>8}")

    def timed(
        what: str, count: int, call: Callable[[], Any], other: tuple[str, Callable[[], object]] | None = None
    ) -> Any:
        started = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - started
        text = f"{what:<28}{count:>10,}{seconds:>10.1f}{1000 * seconds / count:>10.3f}"
        if other is not None:
            started = time.perf_counter()
            other[1]()
            rival_seconds = time.perf_counter() - started
            text += f"{rival_seconds:>10.1f}{rival_seconds / seconds:>8.2f}  ({other[0]})"
        print(text, flush=True)
        return result

    for number, count in enumerate(counts):
        path = root / f"labels{number}.gpkg"
        make_labels(path, count, number)
        timed("import", count, lambda path=path: import_labels(campaign, path, coverage="regions"))
        timed("import again: nothing new", count, lambda path=path: import_labels(campaign, path, coverage="regions"))
        release = timed("freeze", count, lambda: freeze_release(campaign))
        held = release.release_labels.count()
        for fmt, driver, ending in (("gpkg", "GPKG", "gpkg"), ("geojson", "GeoJSON", "geojson")):
            mine, theirs = root / f"mine{number}.{ending}", root / f"theirs{number}.{ending}"
            run = lambda mine=mine, fmt=fmt, release=release: export(release, fmt, mine)  # noqa: E731
            timed(f"export {fmt}", held, run, rival(release.pk, theirs, driver))
            mine.unlink()
            theirs.unlink()
            timed(f"export {fmt}, all columns", held, run, rival(release.pk, theirs, driver, ALL_COLUMNS))


def main() -> None:
    """Start a throwaway PostGIS and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels", type=int, nargs="+", default=[20_000, 100_000])
    options = parser.parse_args()
    with throwaway() as root:
        measure(root, options.labels)


if __name__ == "__main__":
    main()
