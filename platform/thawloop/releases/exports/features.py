"""A release's labels as plain columns: geometry and attributes that are safe to open anywhere."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from django.db import connection
from django.utils.crypto import salted_hmac
from numpy.typing import NDArray

from thawloop.catalog.measures import measures
from thawloop.releases.membership import ignored_parts
from thawloop.releases.models import Release

# Attribute names and the types GeoPackage columns get.
FIELDS: dict[str, type] = {
    "label": str,
    "revision": int,
    "class": str,
    "area_m2": float,
    "perimeter_m": float,
    "region": str,
    "split": str,
    "author": str,
    "created": str,
    "source": str,
    "release": str,
}
BATCH = 20_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


_HELD = """
    SELECT revision.id, label.id::text, revision.number, landform.name, revision.author_name,
        to_char(revision.created AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'),
        import.file_name, ST_AsBinary(revision.geometry)
    FROM releases_releaselabel AS held
    JOIN labeling_labelrevision AS revision ON revision.id = held.revision_id
    JOIN labeling_label AS label ON label.id = revision.label_id
    JOIN labeling_landformclass AS landform ON landform.id = revision.landform_class_id
    LEFT JOIN labeling_labelimport AS import ON import.id = revision.label_import_id
    WHERE held.release_id = %s ORDER BY label.id
"""


@dataclass(frozen=True)
class LabelTable:
    """Labels of a release, column by column.

    Attributes:
        shapes: [N] MultiPolygons in EPSG:4326.
        columns: [N] values of each of `FIELDS`.
    """

    shapes: NDArray[np.object_]
    columns: dict[str, Sequence[Any]]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The attributes, label by label."""
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))


def label_tables(release: Release, on_tiles: Mapping[int, set[int]]) -> Iterator[LabelTable]:
    """Every label of a release, by label id, some thousands at a time.

    Args:
        release: The release.
        on_tiles: Tile id to the revision ids on it: labels lie in the regions of these tiles, and in the splits of
            those on which they count.
    """
    regions, splits = _places(release, on_tiles)
    named = f"{release.campaign.name} {release.version}"
    safe, author = lru_cache(maxsize=4096)(safe_text), lru_cache(maxsize=4096)(pseudonym)
    with connection.cursor() as cursor:
        cursor.execute(_HELD, [release.pk])
        while rows := cursor.fetchmany(BATCH):
            revisions, labels, numbers, classes, authors, created, files, wkb = zip(*rows, strict=True)
            shapes = shapely.from_wkb(np.array([bytes(one) for one in wkb], dtype=object))
            areas, perimeters = measures(shapes)
            values: tuple[Sequence[Any], ...] = (
                labels,
                numbers,
                [safe(name) for name in classes],
                areas.round(2).tolist(),
                perimeters.round(2).tolist(),
                [safe(", ".join(sorted(regions.get(revision, ())))) for revision in revisions],
                [", ".join(sorted(splits.get(revision, ()))) for revision in revisions],
                [author(name) for name in authors],
                created,
                [safe(f"import of {name}" if name else "Label Studio") for name in files],
                [named] * len(rows),
            )
            yield LabelTable(shapes, dict(zip(FIELDS, values, strict=True)))


def _places(release: Release, on_tiles: Mapping[int, set[int]]) -> tuple[dict[int, set[str]], dict[int, set[str]]]:
    """Revision id to the names of the regions, and to the splits, of the tiles it lies on."""
    ignored = _ignored(release)
    rows = release.release_tiles.values_list("tile_id", "tile__region__name", "split")
    regions: dict[int, set[str]] = {}
    splits: dict[int, set[str]] = {}
    for tile, region, split in rows:
        for revision in on_tiles.get(tile, ()):
            regions.setdefault(revision, set()).add(region)
            if (tile, revision) not in ignored:
                splits.setdefault(revision, set()).add(split)
    return regions, splits


def _ignored(release: Release) -> set[tuple[int, int]]:
    """`ignored_parts` by the ids of tile and revision."""
    names = [tuple(name.rsplit("/", 1)) for name in ignored_parts(release)]
    if not names:
        return set()
    keys, labels = zip(*names, strict=True)
    tiles = dict(release.release_tiles.filter(tile__key__in=keys).values_list("tile__key", "tile_id"))
    held = release.release_labels.filter(revision__label__in=labels).values_list("revision__label_id", "revision_id")
    revisions = {str(label): revision for label, revision in held}
    return {(tiles[key], revisions[label]) for key, label in names}


def pseudonym(author: str) -> str:
    """Tells a release's authors apart without naming them: e-mail addresses are nobody's business but ours."""
    return f"author-{salted_hmac('releases.author', author.strip().lower()).hexdigest()[:8]}" if author else ""


def safe_text(text: str) -> str:
    """Text without control characters that no spreadsheet takes for a formula."""
    text = _CONTROL.sub(" ", text)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text
