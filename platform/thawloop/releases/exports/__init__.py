"""Releases in other people's formats.

An exporter is given the release, a path to write to, and a function that returns the dataset directory for those that
need it; the service moves what was written to its place.
"""

from collections.abc import Callable
from pathlib import Path

from thawloop.releases.exports.datasets import write_coco, write_dataset
from thawloop.releases.exports.tiles import write_tiles
from thawloop.releases.exports.vectors import write_geojson, write_gpkg
from thawloop.releases.models import Release

Exporter = Callable[[Release, Path, Callable[[], Path]], None]

EXPORTERS: dict[str, Exporter] = {
    "coco": write_coco,
    "dataset": write_dataset,
    "geojson": write_geojson,
    "gpkg": write_gpkg,
    "tiles": write_tiles,
}

__all__ = ["EXPORTERS"]
