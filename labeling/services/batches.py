"""Acquisition batches: asking for one, and recording the tiles that were chosen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import Max

from contracts.acquisition import STRATEGIES
from labeling.models import AcquisitionBatch, AnnotationTask
from thawloop.campaigns.models import Campaign
from thawloop.campaigns.settings import AcquisitionSettings
from thawloop.core.context import current_actor
from thawloop.core.errors import Conflict, Refused
from thawloop.core.jobs import enqueue
from thawloop.core.models import Job
from thawloop.core.services import audit


class AcquisitionRefused(Refused):
    """A batch cannot be chosen as asked."""


class NothingToAcquire(Conflict):
    """No tile is left that could be given to annotators."""


@dataclass(frozen=True)
class BatchItem:
    """A chosen tile: by which arm, in which order, how uncertain the model was, and why it was chosen."""

    tile_id: int
    arm: str
    rank: int
    score: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    prediction_id: int | None = None


def acquire(
    campaign: Campaign, *, count: int | None = None, strategy: str | None = None, seed: int | None = None
) -> Job:
    """Ask for a batch of tiles to annotate. While one is being chosen for the campaign, that job is returned.

    Args:
        campaign: An active campaign.
        count: Tiles, both arms together; the campaign's setting if not given.
        strategy: Another strategy than the campaign's, for this batch.
        seed: Another seed than the campaign's plus the batch's number.

    Raises:
        Conflict: the campaign is paused or closed.
        AcquisitionRefused: the count or the strategy is not valid.
        SettingsError: the campaign's own settings are not valid.
    """
    if campaign.state != Campaign.State.ACTIVE:
        raise Conflict(f"Campaign `{campaign.name}` is {campaign.state}: activate it before giving out more tiles.")
    AcquisitionSettings.from_json(campaign.acquisition)
    if count is not None and count < 1:
        raise AcquisitionRefused(f"A batch of {count} tiles is not possible: ask for 1 or more.")
    if strategy is not None and strategy not in STRATEGIES:
        raise AcquisitionRefused(f"There is no strategy `{strategy}`: choose one of {', '.join(STRATEGIES)}.")
    wishes = {"count": count, "strategy": strategy, "seed": seed}
    return enqueue(
        "ml_backend.jobs.acquire",
        key=f"acquire:{campaign.pk}",
        args={"campaign": campaign.pk, **{name: value for name, value in wishes.items() if value is not None}},
    )


def next_batch_number(campaign: Campaign) -> int:
    """The number the campaign's next batch will have."""
    last: int | None = campaign.batches.aggregate(last=Max("number"))["last"]
    return (last or 0) + 1


def record_batch(
    campaign: Campaign,
    items: Iterable[BatchItem],
    *,
    strategy: str,
    seed: int,
    candidates: int,
    parameters: Mapping[str, Any],
    model_version_id: int | None = None,
) -> AcquisitionBatch:
    """Turn chosen tiles into tasks that wait to be pushed to Label Studio.

    Tiles that have a task in the campaign already are left out: a tile is annotated once. A batch that names the same
    `job` in its parameters is recorded once, so that a job which died after recording it may run again.

    Raises:
        NothingToAcquire: none of the tiles is free.
    """
    with transaction.atomic():
        Campaign.objects.select_for_update(of=("self",)).get(pk=campaign.pk)
        job = parameters.get("job")
        if job and (known := campaign.batches.filter(parameters__job=job).first()):
            return known
        chosen = sorted(items, key=lambda item: item.rank)
        taken = set(campaign.tasks.filter(tile__in=[i.tile_id for i in chosen]).values_list("tile_id", flat=True))
        free = [item for item in chosen if item.tile_id not in taken]
        if not free:
            raise NothingToAcquire(
                f"No tile of campaign `{campaign.name}` is left to annotate: all training tiles are given out or "
                "labelled; add regions or imagery."
            )
        batch = AcquisitionBatch.objects.create(
            campaign=campaign,
            number=next_batch_number(campaign),
            strategy=strategy,
            parameters=dict(parameters),
            seed=seed,
            model_version_id=model_version_id,
            candidates=candidates,
            created_by=current_actor().user,
        )
        AnnotationTask.objects.bulk_create(_task(campaign, batch, rank, item) for rank, item in enumerate(free))
        audit(
            "labeling.record_batch",
            batch,
            after={
                "strategy": strategy,
                "seed": seed,
                "candidates": candidates,
                "model_version": model_version_id,
                "acquired": sum(item.arm == AnnotationTask.Arm.ACQUIRED for item in free),
                "random": sum(item.arm == AnnotationTask.Arm.RANDOM for item in free),
                "already_given_out": len(taken),
            },
        )
        enqueue("labeling.labelstudio.jobs.push", key=f"push:{campaign.pk}", args={"campaign": campaign.pk})
    return batch


def _task(campaign: Campaign, batch: AcquisitionBatch, rank: int, item: BatchItem) -> AnnotationTask:
    return AnnotationTask(
        campaign=campaign,
        tile_id=item.tile_id,
        batch=batch,
        arm=item.arm,
        rank=rank,
        score=item.score,
        score_parts=item.parts,
        prediction_id=item.prediction_id,
    )
