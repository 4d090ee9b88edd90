"""Choosing the next tiles to annotate."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db.models import F, Q

from labeling.models import Prediction
from labeling.selectors import labelled_tiles, unlabelled_tiles
from labeling.services import BatchItem, NothingToAcquire, next_batch_number, record_batch
from labeling.services.predictions import embedding_of
from ml_backend.acquisition import Candidates, Selected, select
from ml_backend.jobs.refusals import refusals
from thawloop.campaigns.models import Campaign
from thawloop.campaigns.selectors import campaign_tiles
from thawloop.campaigns.settings import AcquisitionSettings
from thawloop.core.errors import Refused
from thawloop.core.jobs import JobContext, JobPostponed, job
from thawloop.registry.models import ModelVersion
from thawloop.registry.selectors import champion
from thawloop.training.selectors import is_predicting

COLD_START = "space_filling"


class NothingPredicted(Refused):
    """The champion has not predicted any candidate."""


@dataclass(frozen=True)
class _CandidatePool:
    """The tiles to choose from, and their predictions, in the order of `candidates`; `labelled` is float32 [L, D]."""

    tiles: list[int]
    predictions: list[int | None]
    candidates: Candidates
    labelled: npt.NDArray[np.float32]


@job()
def acquire(job: JobContext) -> dict[str, Any]:
    """Choose a batch and record it.

    Args (in the job): `campaign`; `count`, `strategy` and `seed` override the campaign's settings.

    Without a champion the tiles are spread over the map (`space_filling`), away from those labelled or given out. While
    the champion is predicting, as after a promotion, the job is postponed: it could choose only among the tiles
    predicted so far.
    """
    campaign = Campaign.objects.select_related("grid").get(pk=job.args["campaign"])
    settings = AcquisitionSettings.from_json(campaign.acquisition)
    model = champion(campaign)
    if model and is_predicting(campaign, model):
        raise JobPostponed(f"Waiting until {model.name} has predicted the campaign's tiles.")
    pool = _predicted_pool(campaign, model) if model else _located_pool(campaign)
    strategy = job.args.get("strategy") or settings.strategy
    count = int(job.args.get("count") or (settings.batch_size if model else settings.initial_batch_size))
    number = next_batch_number(campaign)
    seed = int(job.args["seed"]) if "seed" in job.args else settings.seed + number
    random_count = round(count * settings.random_fraction)
    with refusals(job):
        chosen = select(
            pool.candidates,
            count=count,
            random_count=random_count,
            strategy=strategy,
            labelled=pool.labelled if len(pool.labelled) else None,
            pool_factor=settings.pool_factor,
            seed=seed,
        )
    batch = record_batch(
        campaign,
        [_item(pool, item) for item in chosen],
        strategy=strategy if model or strategy == "random" else COLD_START,
        seed=seed,
        candidates=len(pool.tiles),
        model_version_id=model.pk if model else None,
        parameters={
            "job": str(job.job.pk),
            "count": count,
            "random_count": random_count,
            "pool_factor": settings.pool_factor,
            "strategy_asked_for": strategy,
            "labelled": len(pool.labelled),
            "embedding": f"{model.name} [{pool.candidates.embeddings.shape[1]}]" if model else "tile centres [m]",
        },
    )
    return {"batch": batch.number, "tiles": batch.tasks.count(), "candidates": batch.candidates}


def _item(pool: _CandidatePool, chosen: Selected) -> BatchItem:
    return BatchItem(
        tile_id=pool.tiles[chosen.index],
        arm=chosen.arm,
        rank=chosen.rank,
        score=chosen.score if pool.candidates.uncertainty is not None else None,
        parts=chosen.parts,
        prediction_id=pool.predictions[chosen.index],
    )


def _predicted_pool(campaign: Campaign, model: ModelVersion) -> _CandidatePool:
    """The unlabelled tiles that the champion has predicted, with its embeddings."""
    free = unlabelled_tiles(campaign).order_by().values("pk")
    rows = Prediction.objects.filter(model_version=model)
    found = list(
        rows.filter(tile__in=free)
        .order_by("tile__key")
        .values_list("tile", "tile__key", "pk", "embedding", "uncertainty")
        .iterator(chunk_size=2000)
    )
    if not found:
        if free.exists():
            raise NothingPredicted(
                f"{model.name} has predicted none of the tiles that can be annotated: run `predict --campaign "
                f"{campaign.name}` first."
            )
        raise _nothing_left(campaign)
    known = rows.filter(_labelled_or_assigned(campaign)).order_by("tile__key").values_list("embedding", flat=True)
    tiles, keys, predictions, embeddings, uncertainty = zip(*found, strict=True)
    return _CandidatePool(
        tiles=list(tiles),
        predictions=list(predictions),
        candidates=Candidates(keys, _stack(embeddings), np.array(uncertainty, dtype=np.float64)),
        labelled=_stack(known.iterator(chunk_size=2000)),
    )


def _located_pool(campaign: Campaign) -> _CandidatePool:
    """All unlabelled tiles, with their locations in metres as embeddings [N, 2]."""
    found = list(unlabelled_tiles(campaign).order_by("key").values_list("pk", "key", "col", "row"))
    if not found:
        raise _nothing_left(campaign)
    grid = campaign.grid
    step = (grid.tile_size - grid.overlap) * grid.pixel_size
    known = campaign_tiles(campaign).filter(
        Q(pk__in=labelled_tiles(campaign).order_by().values("pk")) | Q(tasks__campaign=campaign)
    )
    tiles, keys, columns, lines = zip(*found, strict=True)
    places = np.column_stack([columns, lines]).astype(np.float64) * step
    there = np.array(list(known.order_by("key").values_list("col", "row").distinct()), dtype=np.float64)
    # Relative to a corner of the map, so that float32 is precise enough.
    corner = places.min(axis=0)
    return _CandidatePool(
        tiles=list(tiles),
        predictions=[None] * len(tiles),
        candidates=Candidates(keys, (places - corner).astype(np.float32)),
        labelled=(there.reshape(-1, 2) * step - corner).astype(np.float32),
    )


def _labelled_or_assigned(campaign: Campaign) -> Q:
    """Predictions of tiles that are labelled or were given out."""
    return Q(tile__in=labelled_tiles(campaign).order_by().values("pk")) | Q(
        tile__in=campaign.tasks.values(pk_of_tile=F("tile"))
    )


def _stack(stored: Any) -> npt.NDArray[np.float32]:
    rows = [embedding_of(row) for row in stored]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


def _nothing_left(campaign: Campaign) -> NothingToAcquire:
    return NothingToAcquire(
        f"No tile of campaign `{campaign.name}` is left to annotate: all training tiles are given out or labelled; "
        "add regions or imagery."
    )
