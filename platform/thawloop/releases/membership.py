"""Which tiles and label revisions a release holds: now, and when it was frozen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import Exists, OuterRef
from numpy.typing import NDArray

from labeling.models import LabelImport, LabelRevision
from labeling.selectors import (
    Known,
    KnownTile,
    current_labels,
    known_tiles,
    misunderstood_annotations,
    standing_annotations,
)
from thawloop.campaigns.models import Campaign
from thawloop.releases.definition import shape_of
from thawloop.releases.models import Release
from thawloop.releases.separation import (
    BEYOND_COVERAGE,
    LOST_FEATURE,
    NEAR,
    NOT_ON_A_TILE,
    NOT_UNDERSTOOD,
    ON_LEFT_OUT_TILE,
    SHARES_OBJECT,
    LabelledTile,
    LeftOut,
    near_another_split,
    part_name,
    shared_parts,
)
from thawloop.releases.versions import Members

# A tile's labels have one source: the shapes of its annotation, or the imports where nobody annotated it.
# Both at once would teach every slump twice.
_REVISIONS_ON_TILES = """
    WITH member AS ({member}), held AS ({held})
    SELECT member.tile_id, revision.id
    FROM member
    JOIN labeling_label AS label ON label.tile_id = member.tile_id AND label.origin LIKE 'ls:%%'
    JOIN labeling_labelrevision AS revision ON revision.label_id = label.id
    JOIN held ON held.revision_id = revision.id
    WHERE member.annotation_id IS NOT NULL
    UNION ALL
    SELECT member.tile_id, revision.id
    FROM member
    JOIN catalog_tile AS tile ON tile.id = member.tile_id
    JOIN labeling_labelrevision AS revision ON ST_Intersects(revision.geometry, tile.geometry)
    JOIN labeling_label AS label ON label.id = revision.label_id
    JOIN held ON held.revision_id = revision.id
    WHERE member.annotation_id IS NULL AND label.tile_id IS NULL
"""
_NAMED = "SELECT * FROM unnest(%(tiles)s::bigint[], %(annotations)s::bigint[]) AS pair (tile_id, annotation_id)"
_OF_RELEASE = "SELECT tile_id, annotation_id FROM releases_releasetile WHERE release_id = %(owner)s"
_HELD_NOW = """
    SELECT label.current_id AS revision_id FROM labeling_label AS label
    JOIN labeling_labelrevision AS revision ON revision.id = label.current_id AND revision.state = 'present'
    WHERE label.campaign_id = %(owner)s
"""
_HELD_BY_RELEASE = "SELECT revision_id FROM releases_releaselabel WHERE release_id = %(owner)s"

_WHY = {Known.PARTLY_COVERED: BEYOND_COVERAGE, Known.UNCLEAR: LOST_FEATURE}

Tiles = Mapping[int, tuple[str, int | None]]


def current_members(campaign: Campaign, definition: dict[str, Any]) -> tuple[Members, dict[int, set[int]], LeftOut]:
    """What a release frozen now would hold.

    Returns:
        The members; the revision ids that count on each tile; what is left out, with the reasons.
    """
    known = known_tiles(campaign)
    cells = [
        LabelledTile(row.tile, row.split, row.col, row.row, row.key) for row in known if row.known == Known.LABELLED
    ]
    annotations = _annotations(campaign)
    labelled = {cell.tile: (cell.split, annotations.get(cell.tile)) for cell in cells}
    on_labelled = _revisions_on(_HELD_NOW, campaign.pk, labelled)
    near = near_another_split(campaign, cells)
    key_of = {cell.tile: cell.key for cell in cells if cell.tile not in near}
    tiles = {tile: labelled[tile] for tile in key_of}
    on_tiles = {tile: found for tile, found in on_labelled.items() if tile in tiles}
    revisions = set().union(*on_tiles.values()) if on_tiles else set()
    labels = _labels_of(revisions)
    shared = shared_parts(campaign, [cell for cell in cells if cell.tile in tiles], on_tiles)
    label_of = {revision: label for label, revision in labels.items()}
    left_out = LeftOut(
        _left_out_tiles(campaign, known, near),
        _left_out_labels(campaign, revisions, set().union(*on_labelled.values()) if on_labelled else set()),
        {part_name(key_of[tile], label_of[revision]): SHARES_OBJECT for tile, revision in shared},
    )
    members = Members(tiles, labels, _sources(campaign, tiles, revisions), shape_of(definition))
    counted = {tile: {one for one in found if (tile, one) not in shared} for tile, found in on_tiles.items()}
    return members, counted, left_out


def _left_out_tiles(campaign: Campaign, known: Sequence[KnownTile], near: set[int]) -> dict[str, str]:
    """Tiles whose labels are known in part or whole and that a release does not hold: key to reason."""
    misunderstood = misunderstood_annotations(campaign).values_list("task__tile__key", flat=True)
    found = {row.key: _WHY[row.known] for row in known if row.known in _WHY}
    found |= dict.fromkeys(misunderstood, NOT_UNDERSTOOD)
    for row in known:
        if row.tile in near:
            found[row.key] = NEAR
        elif row.known == Known.LABELLED:
            found.pop(row.key, None)
    return found


def _left_out_labels(campaign: Campaign, held: set[int], on_labelled: set[int]) -> dict[str, str]:
    """Labels of record that a release does not hold: id to reason."""
    rows = current_labels(campaign).order_by().values_list("label_id", "pk")
    return {
        str(label): ON_LEFT_OUT_TILE if revision in on_labelled else NOT_ON_A_TILE
        for label, revision in rows
        if revision not in held
    }


def frozen_members(release: Release) -> Members:
    """What a release holds."""
    tiles: dict[int, tuple[str, int | None]] = {
        tile: (split, annotation)
        for tile, split, annotation in release.release_tiles.values_list("tile_id", "split", "annotation_id")
    }
    labels = release.release_labels.values_list("revision__label_id", "revision_id")
    sources = frozenset(release.definition["provenance"]["sources"])
    return Members(tiles, {str(label): revision for label, revision in labels}, sources, shape_of(release.definition))


def _annotations(campaign: Campaign) -> dict[int, int]:
    """Tile id to the submission that holds there: the latest, where several annotators submitted."""
    return dict(
        standing_annotations(campaign).order_by("ls_updated_at", "ls_annotation_id").values_list("task__tile_id", "id")
    )


def frozen_revisions_on(release: Release, tiles: Tiles) -> dict[int, set[int]]:
    """Tile id to the revision ids that a release holds on it, for some of its tiles."""
    return _revisions_on(_HELD_BY_RELEASE, release.pk, tiles)


@dataclass(frozen=True)
class Pairs:
    """Which label revisions are on which tiles: ids `tiles` [N] and `revisions` [N]."""

    tiles: NDArray[np.int64]
    revisions: NDArray[np.int64]

    def on_each(self, tiles: Sequence[int]) -> list[int]:
        """How many revisions are on each tile."""
        known, counts = np.unique(self.tiles, return_counts=True)
        number = dict(zip(known.tolist(), counts.tolist(), strict=True))
        return [number.get(tile, 0) for tile in tiles]


def frozen_pairs(release: Release) -> Pairs:
    """What a release holds on all of its tiles."""
    with connection.cursor() as cursor:
        sql = _REVISIONS_ON_TILES.format(member=_OF_RELEASE, held=_HELD_BY_RELEASE)
        cursor.execute(sql, {"owner": release.pk})
        rows = np.array(cursor.fetchall(), dtype=np.int64).reshape(-1, 2)
    return Pairs(rows[:, 0], rows[:, 1])


def ignored_parts(release: Release) -> frozenset[str]:
    """Labels on tiles, as `part_name`, that are ignored ground in a release; none in those of earlier versions."""
    left_out = release.definition["provenance"].get("left_out")
    reasons = left_out.get("parts", {}) if isinstance(left_out, dict) else {}
    return frozenset(name for names in reasons.values() for name in names)


def _revisions_on(held: str, owner: int, tiles: Tiles) -> dict[int, set[int]]:
    arguments: dict[str, Any] = {
        "tiles": list(tiles),
        "annotations": [annotation for _, annotation in tiles.values()],
        "owner": owner,
    }
    found: dict[int, set[int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_REVISIONS_ON_TILES.format(member=_NAMED, held=held), arguments)
        for tile, revision in cursor.fetchall():
            found.setdefault(tile, set()).add(revision)
    return found


def _labels_of(revisions: set[int]) -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT label_id::text, id FROM labeling_labelrevision WHERE id = ANY(%s)", [sorted(revisions)])
        return dict(cursor.fetchall())


def _sources(campaign: Campaign, tiles: Tiles, revisions: set[int]) -> frozenset[str]:
    """`annotations` if anybody drew; `import:<checksum>` for every file that gave a label or covers a tile."""
    drawn = {"annotations"} if any(annotation for _, annotation in tiles.values()) else set()
    given = LabelRevision.objects.filter(label_import=OuterRef("pk"), pk__in=revisions)
    gave = LabelImport.objects.filter(Exists(given), campaign=campaign)
    covers = LabelImport.objects.filter(campaign=campaign, withdrawn__isnull=True, coverage__isnull=False)
    if all(annotation for _, annotation in tiles.values()):
        covers = covers.none()
    return frozenset(drawn | {f"import:{item.checksum}" for item in gave.union(covers)})
