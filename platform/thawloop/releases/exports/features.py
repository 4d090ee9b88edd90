"""A release's labels as plain features: geometry and attributes that are safe to open anywhere."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.crypto import salted_hmac
from shapely.geometry.base import BaseGeometry

from labeling.models import LabelRevision
from thawloop.catalog.geometry import WGS84, geodesic_area, to_shapely
from thawloop.core.bulk import without_bulk
from thawloop.releases.membership import frozen_members, frozen_revisions_on
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
BATCH = 1_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class LabelFeature:
    """A label of a release: geometry in EPSG:4326, attributes named by `FIELDS`."""

    geometry: BaseGeometry
    attributes: dict[str, Any]


def label_features(release: Release) -> Iterator[LabelFeature]:
    """Every label of a release, by label id, with the regions and splits of the tiles it lies on."""
    tiles = frozen_members(release).tiles
    regions = dict(release.release_tiles.values_list("tile_id", "tile__region__name"))
    places: dict[int, tuple[set[str], set[str]]] = {}
    for tile, revisions in frozen_revisions_on(release, tiles).items():
        for revision_id in revisions:
            where = places.setdefault(revision_id, (set(), set()))
            where[0].add(regions[tile])
            where[1].add(tiles[tile][0])
    held = LabelRevision.objects.filter(releaselabel__release=release).order_by("label_id")
    for revision in without_bulk(held.select_related("landform_class", "label_import")).iterator(chunk_size=BATCH):
        names, splits = places.get(revision.pk, (set(), set()))
        yield LabelFeature(to_shapely(revision.geometry), _attributes(release, revision, names, splits))


def _attributes(release: Release, revision: LabelRevision, regions: set[str], splits: set[str]) -> dict[str, Any]:
    shape = to_shapely(revision.geometry)
    source = f"import of {revision.label_import.file_name}" if revision.label_import else "Label Studio"
    return {
        "label": str(revision.label_id),
        "revision": revision.number,
        "class": safe_text(revision.landform_class.name),
        "area_m2": finite(geodesic_area(shape)),
        "perimeter_m": finite(abs(float(WGS84.geometry_length(shape)))),
        "region": safe_text(", ".join(sorted(regions))),
        "split": ", ".join(sorted(splits)),
        "author": pseudonym(revision.author_name),
        "created": revision.created.isoformat(timespec="seconds"),
        "source": safe_text(source),
        "release": f"{release.campaign.name} {release.version}",
    }


def pseudonym(author: str) -> str:
    """Tells a release's authors apart without naming them: e-mail addresses are nobody's business but ours."""
    return f"author-{salted_hmac('releases.author', author.strip().lower()).hexdigest()[:8]}" if author else ""


def safe_text(text: str) -> str:
    """Text without control characters that no spreadsheet takes for a formula."""
    text = _CONTROL.sub(" ", text)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text


def finite(value: float) -> float:
    """Rounded to centimetres (squared); 0 where it is no number."""
    return round(value, 2) if math.isfinite(value) else 0.0
