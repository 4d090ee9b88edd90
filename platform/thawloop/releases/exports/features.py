"""A release's labels as plain columns: geometry and attributes that are safe to open anywhere."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from django.db import connection
from django.utils.crypto import salted_hmac
from numpy.typing import NDArray

from thawloop.catalog.measures import measures
from thawloop.releases.membership import Pairs, ignored_parts
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
    JOIN campaigns_landformclass AS landform ON landform.id = revision.landform_class_id
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


def label_tables(release: Release, pairs: Pairs) -> Iterator[LabelTable]:
    """Every label of a release, by label id, some thousands at a time.

    Args:
        release: The release.
        pairs: Which revisions are on which tiles: labels lie in the regions of these tiles, and in the splits of those
            on which they count.
    """
    regions, splits = _places(release, pairs)
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
                [safe(regions.get(revision, "")) for revision in revisions],
                [splits.get(revision, "") for revision in revisions],
                [author(name) for name in authors],
                created,
                [safe(f"import of {name}" if name else "Label Studio") for name in files],
                [named] * len(rows),
            )
            yield LabelTable(shapes, dict(zip(FIELDS, values, strict=True)))


def _places(release: Release, pairs: Pairs) -> tuple[dict[int, str], dict[int, str]]:
    """Revision id to the names of the regions, and to the splits, of the tiles it lies on."""
    rows = release.release_tiles.order_by("tile_id").values_list("tile_id", "tile__region__name", "split")
    if not rows or not len(pairs.tiles):
        return {}, {}
    tiles, regions, splits = map(np.array, zip(*rows, strict=True))
    place = np.searchsorted(tiles, pairs.tiles)
    ignored = _ignored(release)
    counts = np.fromiter(
        (pair not in ignored for pair in zip(pairs.tiles.tolist(), pairs.revisions.tolist(), strict=True)),
        dtype=bool,
        count=len(place),
    )
    return _joined(pairs.revisions, regions[place]), _joined(pairs.revisions[counts], splits[place[counts]])


def _joined(owners: NDArray[np.int64], names: NDArray[np.str_]) -> dict[int, str]:
    """The different names [N] of each owner [N], sorted, with commas between."""
    known, number = np.unique(names, return_inverse=True)
    found: dict[int, str] = {}
    for owner, name in np.unique(np.column_stack([owners, number]), axis=0).tolist():
        found[owner] = f"{found[owner]}, {known[name]}" if owner in found else str(known[name])
    return found


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
