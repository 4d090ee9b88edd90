"""Questions about campaigns, labelled tiles and labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.contrib.gis.db.models import PolygonField
from django.core.cache import cache
from django.db import connection
from django.db.models import Case, Count, Exists, F, Func, IntegerChoices, Max, OuterRef, Q, QuerySet, Subquery, When

from labeling.models import Annotation, AnnotationTask, LabelImport, LabelRevision
from thawloop.campaigns.models import Campaign, Split
from thawloop.campaigns.selectors import campaign_tiles, regions_of
from thawloop.catalog.models import Tile
from thawloop.core.bulk import without_bulk


class _Inset(Func):
    """A tile's outline, drawn in by a thousandth of its size.

    Tiles and regions have edges that are straight on the grid's plane and stored as short lines in degrees: where they
    run along each other, slivers of centimetres are left between them.
    """

    # Each part by itself: a tile split at the antimeridian has its centroid on the other side of the globe.
    # A query of its own: it is answered once per tile, and only if it is asked, however many imports there are.
    template = "(SELECT ST_Buffer(%(expressions)s, -0.001 * sqrt(ST_Area(%(expressions)s))))"
    output_field = PolygonField(srid=4326)


# Of an import, and the tile of the outer query. What covers all of a tile covers its inset: most need none.
_INSET = _Inset(OuterRef("geometry"))
_NEAR = Q(coverage__bboverlaps=OuterRef("geometry"))
_COVERS = Q(coverage__covers=OuterRef("geometry")) | Q(coverage__covers=_INSET)
_REACHES = Q(coverage__intersects=_INSET)
_LOST_THERE = Q(unclear__bboverlaps=OuterRef("geometry")) & Q(unclear__intersects=_INSET)

_KEPT_SECONDS = 30
# Small tables by the place and the writer of every row: they may be updated.
_STATE_OF_LABELS = """
    SELECT (SELECT max(id) FROM labeling_annotation), (SELECT max(id) FROM labeling_labelrevision),
           (SELECT max(id) FROM catalog_tile),
           (SELECT array_agg((ctid, xmin::text)::text ORDER BY id) FROM labeling_labelimport WHERE campaign_id = %s),
           (SELECT array_agg((ctid, xmin::text)::text ORDER BY id) FROM campaigns_campaignregion WHERE campaign_id = %s)
"""


class Known(IntegerChoices):
    """What is known of a tile's instances; of all that is said about it, the highest counts."""

    PARTLY_COVERED = 1, "an import's coverage reaches it without covering it"
    UNCLEAR = 2, "an import lost a feature on it"
    LABELLED = 3, "all instances are known"


class KnownTile(NamedTuple):
    """A tile of which something is known."""

    tile: int
    split: str
    col: int
    row: int
    key: str
    known: Known


@dataclass(frozen=True)
class LabelStock:
    """What a campaign has to learn from, and what of it is new since some moment.

    Attributes:
        tiles: Labelled tiles of each split that has any.
        new_tiles: Train and val tiles labelled since.
        labels: Labels of record.
        new_labels: Labels changed since.
        teaching: Of train and val, the splits in which any label lies on a labelled tile.
    """

    tiles: dict[str, int]
    new_tiles: int
    labels: int
    new_labels: int
    teaching: frozenset[str]


def standing_annotations(campaign: Campaign) -> QuerySet[Annotation]:
    """The submissions that make a statement about their tile; the last of a task holds.

    That is the newest row of each annotation that was submitted, not skipped or deleted, in which everything was
    understood, and whose verdict is not one that says nothing (`uncertain`, `bad imagery`).
    """
    standing = Annotation.objects.filter(task__campaign=campaign, makes_statement=True, superseded_by__isnull=True)
    return standing.order_by("ls_updated_at", "ls_annotation_id", "id")


def misunderstood_annotations(campaign: Campaign) -> QuerySet[Annotation]:
    """The standing submissions in which something was not understood: their annotators have to correct them."""
    return Annotation.objects.filter(
        task__campaign=campaign, kind=Annotation.Kind.SUBMITTED, superseded_by__isnull=True
    ).exclude(problems=[])


def covering_imports(campaign: Campaign) -> QuerySet[LabelImport]:
    """The imports that make a statement about the tile of the outer query: they cover it and lost nothing there."""
    clear = Q(unclear__isnull=True) | ~_LOST_THERE
    return _valid_imports(campaign).filter(_NEAR, _COVERS, clear)  # boxes first: most tiles are nowhere near a coverage


def labelled_tiles(campaign: Campaign) -> QuerySet[Tile]:
    """Tiles of which all instances are known, each with its `split`: annotated, or inside an import's coverage.

    This is the one place that decides it: releases, policy, acquisition and pages ask here.
    """
    annotated = standing_annotations(campaign).filter(task__tile=OuterRef("pk"))
    return campaign_tiles(campaign).filter(Exists(annotated) | Exists(covering_imports(campaign)))


def known_tiles(campaign: Campaign) -> list[KnownTile]:
    """Every tile of which something is known, in one query that looks at each tile once.

    Those that are `LABELLED` are `labelled_tiles`; the others say why a release leaves them out.
    """
    annotated = Exists(standing_annotations(campaign).filter(task__tile=OuterRef("pk")))
    imports = _valid_imports(campaign).filter(_NEAR | Q(unclear__bboverlaps=OuterRef("geometry"))).order_by()
    said = Case(
        When(_LOST_THERE, then=Known.UNCLEAR),
        When(_COVERS, then=Known.LABELLED),
        When(_REACHES, then=Known.PARTLY_COVERED),
    )
    best = imports.values("campaign").annotate(best=Max(said)).values("best")
    rows = (
        campaign_tiles(campaign)
        .filter(annotated | Exists(imports))
        .annotate(known=Case(When(annotated, then=Known.LABELLED), default=Subquery(best)))
        .values_list("pk", "split", "col", "row", "key", "known")
    )
    return [
        KnownTile(tile, str(split), col, row, key, Known(known))
        for tile, split, col, row, key, known in rows
        if known is not None
    ]


def unlabelled_tiles(campaign: Campaign, split: str = "train") -> QuerySet[Tile]:
    """Tiles of a split that can still be given to annotators: not labelled, and never made a task."""
    tasks = AnnotationTask.objects.filter(campaign=campaign, tile=OuterRef("pk"))
    covered = Exists(covering_imports(campaign))
    return campaign_tiles(campaign).filter(~Exists(tasks), ~covered, region__in=regions_of(campaign, split))


def current_labels(campaign: Campaign) -> QuerySet[LabelRevision]:
    """The labels of record: for each label that holds, its current revision."""
    revisions = LabelRevision.objects.filter(
        label__campaign=campaign, label__current=F("pk"), state=LabelRevision.State.PRESENT
    ).select_related("label__tile", "landform_class", "annotation", "label_import")
    return without_bulk(revisions).order_by("label_id")


def count_labelled(campaign: Campaign, since: datetime | None) -> tuple[dict[str, int], int]:
    """How many tiles are labelled, in one query that looks at each tile once.

    Returns:
        Labelled tiles of each split that has any; and how many have a newer annotation or import than a moment (all,
        if there is none), not counting test tiles, from which nothing is learned.
    """
    newer = Q() if since is None else Q(created__gt=since)
    annotated = standing_annotations(campaign).filter(task__tile=OuterRef("pk"))
    imports = covering_imports(campaign)
    cases = [When(Exists(annotated.filter(newer)) | Exists(imports.filter(newer)), then=True)]
    if since is not None:  # each import is compared with a tile in one of the cases only
        cases.append(When(Exists(annotated) | Exists(imports.exclude(newer)), then=False))
    found = campaign_tiles(campaign).order_by().values("split", new=Case(*cases))  # type: ignore[misc]  # annotated
    counts = found.annotate(tiles=Count("pk"))
    tiles: dict[str, int] = {}
    new_tiles = 0
    for split, is_new, count in counts.values_list("split", "new", "tiles"):
        if is_new is not None:
            tiles[split] = tiles.get(split, 0) + count
        if is_new and split != Split.TEST:
            new_tiles += count
    return tiles, new_tiles


def changed_labels(campaign: Campaign, since: datetime | None) -> int:
    """How many labels have a newer revision than a moment (any, if there is none)."""
    revisions = LabelRevision.objects.filter(label__campaign=campaign)
    if since is not None:
        revisions = revisions.filter(created__gt=since)
    return revisions.aggregate(labels=Count("label", distinct=True))["labels"] or 0


def teaching_splits(campaign: Campaign, splits: Sequence[str]) -> frozenset[str]:
    """Those of some splits in which any label of record lies on a labelled tile, in one query."""
    if not splits:
        return frozenset()
    found = Campaign.objects.values_list(*(Exists(_labels_on_tiles(campaign, split)) for split in splits))
    return frozenset(split for split, teaches in zip(splits, found.get(pk=campaign.pk), strict=True) if teaches)


def label_stock(campaign: Campaign, since: datetime | None) -> LabelStock:
    """Count a campaign's labelled tiles and labels, and what is newer than a moment (all, if there is none).

    Pages and the reconciler ask this every few seconds, of campaigns in which nothing has changed for hours. So it is
    the one answer that is kept from request to request: as long as nothing was written that could change it, and half
    a minute at most, for a transaction with a lower number may be committed later.
    """
    key = f"labeling.stock.{campaign.pk}.{since.timestamp() if since else ''}.{_state_of_labels(campaign)}"
    kept: LabelStock | None = cache.get(key)
    if kept is None:
        tiles, new_tiles = count_labelled(campaign, since)
        kept = LabelStock(
            tiles=tiles,
            new_tiles=new_tiles,
            labels=current_labels(campaign).count(),
            new_labels=changed_labels(campaign, since),
            teaching=teaching_splits(campaign, [split for split in (Split.TRAIN, Split.VAL) if split in tiles]),
        )
        cache.set(key, kept, _KEPT_SECONDS)
    return kept


def _valid_imports(campaign: Campaign) -> QuerySet[LabelImport]:
    return LabelImport.objects.filter(campaign=campaign, withdrawn__isnull=True)


def _labels_on_tiles(campaign: Campaign, split: str) -> QuerySet[LabelRevision]:
    tiles = labelled_tiles(campaign).filter(split=split)  # type: ignore[misc]  # `split` is annotated
    return current_labels(campaign).filter(Exists(tiles.filter(geometry__intersects=OuterRef("geometry"))))


def _state_of_labels(campaign: Campaign) -> str:
    """Differs whenever labels, coverage or tiles may. Annotations and revisions are only ever added."""
    with connection.cursor() as cursor:
        cursor.execute(_STATE_OF_LABELS, [campaign.pk, campaign.pk])
        return hashlib.sha256(repr(cursor.fetchone()).encode()).hexdigest()
