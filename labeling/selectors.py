"""Questions about campaigns, labelled tiles and labels."""

from datetime import datetime
from typing import Protocol

from django.contrib.gis.db.models import PolygonField
from django.db.models import Count, Exists, F, Func, OuterRef, Q, QuerySet

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
    template = "ST_Buffer(%(expressions)s, -0.001 * sqrt(ST_Area(%(expressions)s)))"
    output_field = PolygonField(srid=4326)


class Dated(Protocol):
    """What has a moment of creation: a release, here."""

    @property
    def created(self) -> datetime: ...


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
    # boxes first: most tiles are nowhere near a coverage
    near = LabelImport.objects.filter(
        campaign=campaign, withdrawn__isnull=True, coverage__bboverlaps=OuterRef("geometry")
    )
    clear = Q(unclear__isnull=True) | ~Q(unclear__intersects=_Inset(OuterRef("geometry")))
    return near.filter(clear, coverage__covers=_Inset(OuterRef("geometry")))


def labelled_tiles(campaign: Campaign) -> QuerySet[Tile]:
    """Tiles of which all instances are known, each with its `split`: annotated, or inside an import's coverage.

    This is the one place that decides it: releases, policy, acquisition and pages ask here.
    """
    annotated = standing_annotations(campaign).filter(task__tile=OuterRef("pk"))
    return campaign_tiles(campaign).filter(Exists(annotated) | Exists(covering_imports(campaign)))


def partly_covered_tiles(campaign: Campaign) -> QuerySet[Tile]:
    """Tiles that an import's coverage reaches without covering them, and that are labelled by nothing else."""
    near = LabelImport.objects.filter(
        campaign=campaign, withdrawn__isnull=True, coverage__bboverlaps=OuterRef("geometry")
    )
    reached = near.filter(coverage__intersects=_Inset(OuterRef("geometry")))
    labelled = labelled_tiles(campaign).order_by().values("pk")
    return campaign_tiles(campaign).filter(Exists(reached)).exclude(pk__in=labelled)


def unclear_tiles(campaign: Campaign) -> QuerySet[Tile]:
    """Tiles on which an import lost a feature, and that are labelled by nothing else."""
    near = LabelImport.objects.filter(
        campaign=campaign, withdrawn__isnull=True, unclear__bboverlaps=OuterRef("geometry")
    )
    lost = near.filter(unclear__intersects=_Inset(OuterRef("geometry")))
    labelled = labelled_tiles(campaign).order_by().values("pk")
    return campaign_tiles(campaign).filter(Exists(lost)).exclude(pk__in=labelled)


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


def count_labelled(campaign: Campaign, release: Dated | None) -> tuple[dict[str, int], int]:
    """How many tiles are labelled, in one query that looks at each tile once.

    Returns:
        Labelled tiles of each split that has any; and how many have a newer annotation or import than a release (all,
        if there is none), not counting test tiles, from which nothing is learned.
    """
    tiles = labelled_tiles(campaign).order_by()
    is_new = Q()
    if release is not None:
        newer = Q(created__gt=release.created)
        annotated = standing_annotations(campaign).filter(newer, task__tile=OuterRef("pk"))
        is_new = Q(Exists(annotated) | Exists(covering_imports(campaign).filter(newer)))
    counts = tiles.values("split").annotate(  # type: ignore[misc]  # `split` is annotated
        tiles=Count("pk"), new=Count("pk", filter=is_new)
    )
    rows = list(counts.values_list("split", "tiles", "new"))
    return {split: count for split, count, _ in rows}, sum(new for split, _, new in rows if split != Split.TEST)


def changed_labels(campaign: Campaign, release: Dated | None) -> int:
    """How many labels have a newer revision than a release (any, if there is none)."""
    revisions = LabelRevision.objects.filter(label__campaign=campaign)
    if release is not None:
        revisions = revisions.filter(created__gt=release.created)
    return revisions.aggregate(labels=Count("label", distinct=True))["labels"] or 0
