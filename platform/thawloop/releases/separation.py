"""What a release leaves out, and why: what splits would share, and labels and tiles that cannot be used."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import shapely
from django.db import connection

from thawloop.campaigns.models import Campaign, Split
from thawloop.campaigns.selectors import campaign_tiles, regions_of
from thawloop.releases.splits import neighbours

# A higher split keeps what two would share: nothing of the test set may have been learned or chosen by.
RANK = {Split.TRAIN: 0, Split.VAL: 1, Split.TEST: 2}

NEAR = "near_another_split"
SHARES_OBJECT = "shares_an_object_with_another_split"
NOT_UNDERSTOOD = "submission_not_understood"
BEYOND_COVERAGE = "reaches_beyond_the_coverage_of_its_labels"
LOST_FEATURE = "a_feature_of_its_labels_could_not_be_used"
ON_LEFT_OUT_TILE = "on_a_tile_left_out"
NOT_ON_A_TILE = "on_no_labelled_tile"

REASONS = {
    NEAR: "shares ground with, or lies within the buffer of, a tile of another split",
    SHARES_OBJECT: "is neither learnt nor counted on its tile: a tile of a higher split holds a part of the object",
    NOT_UNDERSTOOD: "something in its last submission was not understood",
    BEYOND_COVERAGE: "reaches out of the area that the imported labels cover",
    LOST_FEATURE: "a feature of the imported labels that lies there could not be used",
    ON_LEFT_OUT_TILE: "lies on tiles that were left out, only",
    NOT_ON_A_TILE: "lies on no tile that is labelled",
}


KINDS = ("tiles", "labels", "parts")


class LabelledTile(NamedTuple):
    """A labelled tile: where it is, and what its pixels are for."""

    tile: int
    split: str
    col: int
    row: int
    key: str


@dataclass
class LeftOut:
    """What a release does not count, each with the key of `REASONS`.

    Attributes:
        tiles: Keys of tiles that are not in it.
        labels: Ids of labels that are not in it.
        parts: Labels on a tile, as `part_name`, that are ignored ground there.
    """

    tiles: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, dict[str, list[str]]]:
        """`{"tiles": {reason: [keys]}, "labels": {reason: [ids]}, "parts": {reason: [names]}}`, sorted."""
        return {what: _by_reason(getattr(self, what)) for what in KINDS}

    def counts(self) -> dict[str, dict[str, int]]:
        """As `to_json`, with numbers."""
        return {
            what: {reason: len(found) for reason, found in reasons.items()} for what, reasons in self.to_json().items()
        }


def near_another_split(campaign: Campaign, cells: Iterable[LabelledTile]) -> set[int]:
    """Tiles that share ground with a tile of a higher split, or lie within the campaign's buffer of one (metres).

    All tiles of the higher splits' regions count, labelled or not: what is labelled later must not have been learned
    from before.
    """
    grid, found = campaign.grid, set()
    buffer = -(-campaign.split_buffer // grid.pixel_size)  # pixels, rounded up
    if not grid.overlap and not buffer:
        return set()  # then a cell shares ground with none but itself, which belongs to one region
    cells = list(cells)
    for split in (Split.TEST, Split.VAL):
        theirs = campaign_tiles(campaign).filter(region__in=regions_of(campaign, split)).values_list("col", "row")
        lower = {(cell.col, cell.row): cell.tile for cell in cells if RANK[Split(cell.split)] < RANK[split]}
        near = neighbours(lower, theirs, tile_size=grid.tile_size, overlap=grid.overlap, buffer=int(buffer))
        found |= {lower[place] for place in near}
    return found


def part_name(tile: str, label: str) -> str:
    """How a label on one of its tiles is named in `LeftOut`."""
    return f"{tile}/{label}"


def shared_parts(
    campaign: Campaign, cells: Iterable[LabelledTile], on_tiles: Mapping[int, set[int]]
) -> set[tuple[int, int]]:
    """Parts of objects, (tile, revision), of which a tile of a higher split holds a part, too.

    An imported label may lie on tiles of several splits. What annotators draw ends at the tile's edge, so the parts of
    one object are those that meet, closer than a pixel, from tile to tile.

    Args:
        campaign: Whose tiles.
        cells: The labelled tiles.
        on_tiles: Tile id to the ids of the revisions on it.
    """
    split_of = {cell.tile: Split(cell.split) for cell in cells}
    if len(set(split_of.values())) < 2:
        return set()
    places: dict[int, set[int]] = {}
    for tile, revisions in on_tiles.items():
        for revision in revisions:
            places.setdefault(revision, set()).add(tile)
    found: set[tuple[int, int]] = set()
    for revisions in _objects(places, _parts_that_meet(campaign, set(places))):
        parts = {(tile, revision) for revision in revisions for tile in places[revision]}
        highest = max(RANK[split_of[tile]] for tile, _ in parts)
        found |= {part for part in parts if RANK[split_of[part[0]]] < highest}
    return found


def _parts_that_meet(campaign: Campaign, revisions: set[int]) -> list[tuple[int, int]]:
    """Pairs of drawn revisions of different tiles that lie closer than a pixel."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT revision.id, label.tile_id, ST_AsBinary(ST_Transform(revision.geometry, %s))"
            " FROM labeling_labelrevision AS revision JOIN labeling_label AS label ON label.id = revision.label_id"
            " WHERE revision.id = ANY(%s) AND label.tile_id IS NOT NULL ORDER BY revision.id",
            [campaign.grid.srid, sorted(revisions)],
        )
        rows = cursor.fetchall()
    shapes = shapely.from_wkb([bytes(shape) for _, _, shape in rows])
    one, other = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=campaign.grid.pixel_size)
    return [(rows[a][0], rows[b][0]) for a, b in zip(one, other, strict=True) if a < b and rows[a][1] != rows[b][1]]


def _objects(parts: Iterable[int], meeting: Iterable[tuple[int, int]]) -> list[set[int]]:
    """Parts joined wherever two meet."""
    group = {part: {part} for part in parts}
    for a, b in meeting:
        if group[a] is not group[b]:
            small, large = sorted((group[a], group[b]), key=len)
            large |= small
            for part in small:
                group[part] = large
    return list({id(found): found for found in group.values()}.values())


def _by_reason(found: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in sorted(found.items()):
        reasons.setdefault(reason, []).append(name)
    return reasons


def in_words(left_out: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence per reason, for `LeftOut.to_json()` or `.counts()`."""
    return [
        f"{count if isinstance(count, int) else len(count)} {what}: each {REASONS.get(reason, reason)}."
        for what in KINDS
        for reason, count in left_out.get(what, {}).items()
    ]
