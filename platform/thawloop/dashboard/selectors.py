"""What the leads' pages show, each in a fixed number of queries."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Max, OuterRef, Q, QuerySet, Subquery

from labeling.models import AcquisitionBatch, Annotation, AnnotationTask, Label
from labeling.selectors import misunderstood_annotations
from thawloop.campaigns.models import Campaign
from thawloop.core.bulk import count_of, without_bulk
from thawloop.core.models import Job
from thawloop.registry.models import ModelVersion
from thawloop.releases.models import Release
from thawloop.training.models import Evaluation


@dataclass(frozen=True)
class AnnotationQueue:
    """How a campaign's tasks stand, what annotators get next, and which submissions they have to correct."""

    counts: dict[str, int]
    total: int
    batch: AcquisitionBatch | None
    arms: dict[str, int]
    next_tasks: list[AnnotationTask]
    misunderstood: list[Annotation]
    median_correction: float | None

    @property
    def submitted_percent(self) -> float:
        """Share of the tasks that are annotated."""
        return 100 * self.counts["submitted"] / self.total if self.total else 0.0


def campaign_cards() -> QuerySet[Campaign]:
    """Every campaign with the numbers of its card."""
    newest = AnnotationTask.objects.filter(campaign=OuterRef("pk")).order_by().values("campaign")
    return Campaign.objects.annotate(
        open_tasks=count_of(AnnotationTask, "campaign", Q(state__in=["pending", "open"])),
        done_tasks=count_of(AnnotationTask, "campaign", Q(state="submitted")),
        label_count=count_of(Label, "campaign", Q(current__state="present")),
        last_activity=Subquery(newest.annotate(last=Max("updated")).values("last")),
    ).order_by("name")


def queue_of(campaign: Campaign) -> AnnotationQueue:
    """The campaign's annotation queue: counts by state, the newest batch, ten tasks, ten submissions to correct."""
    tasks = AnnotationTask.objects.filter(campaign=campaign)
    counts = dict.fromkeys(AnnotationTask.State.values, 0)
    counts |= {row["state"]: row["n"] for row in tasks.order_by().values("state").annotate(n=Count("id"))}
    batch = campaign.batches.select_related("model_version").order_by("-number").first()
    arms = {row["arm"]: row["n"] for row in tasks.filter(batch=batch).order_by().values("arm").annotate(n=Count("id"))}
    waiting = tasks.filter(state__in=["pending", "open"]).select_related("tile")
    corrections = sorted(
        value
        for value in tasks.filter(batch=batch, annotations__correction_iou__isnull=False).values_list(
            "annotations__correction_iou", flat=True
        )
        if value is not None
    )
    return AnnotationQueue(
        counts=counts,
        total=sum(counts.values()),
        batch=batch,
        arms=arms if batch else {},
        next_tasks=list(without_bulk(waiting).order_by(F("batch_id").desc(nulls_last=True), "rank")[:10]),
        misunderstood=list(
            without_bulk(misunderstood_annotations(campaign).select_related("task__tile")).order_by("id")[:10]
        ),
        median_correction=corrections[len(corrections) // 2] if corrections else None,
    )


def jobs_of(campaign: Campaign, *, recent: int = 6) -> list[Job]:
    """The campaign's active jobs, then its most recent finished ones."""
    mine = Job.objects.filter(args__campaign=campaign.pk)
    active = list(mine.filter(state__in=Job.ACTIVE).order_by("created"))
    return active + list(mine.exclude(state__in=Job.ACTIVE).order_by("-finished")[:recent])


@dataclass(frozen=True)
class VersionRow:
    """A model version and its newest evaluation on test tiles."""

    version: ModelVersion
    test: Evaluation | None


def versions_of(campaign: Campaign) -> list[VersionRow]:
    """The campaign's newest model versions, each with its newest test."""
    versions = (
        ModelVersion.objects.filter(campaign=campaign)
        .select_related("release", "parent")
        .prefetch_related("aliases", "evaluations__release")
        .order_by("-number")[:20]
    )
    return [
        VersionRow(version, next((row for row in reversed(version.evaluations.all()) if row.split == "test"), None))
        for version in without_bulk(versions)
    ]


def releases_of(campaign: Campaign) -> QuerySet[Release]:
    """The campaign's newest releases."""
    return Release.objects.filter(campaign=campaign).order_by("-id")[:10]


def label_studio_links(campaign: Campaign) -> dict[str, str]:
    """Where annotators work: the project, and a pattern for one task."""
    if campaign.ls_project_id is None:
        return {}
    project = f"{settings.LABEL_STUDIO_PUBLIC_URL}/projects/{campaign.ls_project_id}/data"
    return {"project": project, "task": f"{project}?task="}


def map_settings(campaign: Campaign) -> dict[str, Any]:
    """What the map script needs: the grid, and where to look first (EPSG:3413 metres)."""
    from django.contrib.gis.db.models import Extent
    from django.contrib.gis.db.models.functions import Transform

    extent = campaign.regions.annotate(polar=Transform("geometry", 3413)).aggregate(extent=Extent("polar"))["extent"]
    return {
        "name": campaign.name,
        "extent": extent,
        "prefix": f"{campaign.grid.name}_{campaign.period}",  # of its tiles' keys
        "step": (campaign.grid.tile_size - campaign.grid.overlap) * campaign.grid.pixel_size,
        "size": campaign.grid.tile_size * campaign.grid.pixel_size,
        "srid": campaign.grid.srid,
        "proj4": _proj4(campaign.grid.srid),
    }


def _proj4(srid: int) -> str:
    import warnings

    from pyproj import CRS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # proj4js has only PROJ strings; their loss is centimetres
        return CRS.from_epsg(srid).to_proj4()
