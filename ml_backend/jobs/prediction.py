"""Predicting a campaign's tiles."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import transaction

from labeling.models import PredictedInstance, Prediction
from labeling.services import TilePrediction, store_predictions
from ml_backend.acquisition import uncertainty
from ml_backend.jobs.refusals import DetectorRefused, refusals
from ml_backend.jobs.resources import ready_device
from thawloop.campaigns.models import Campaign
from thawloop.campaigns.selectors import campaign_tiles, drawn_on
from thawloop.catalog.chips import Chip, ChipReader
from thawloop.catalog.errors import ChipUnreadable
from thawloop.catalog.gdal import gdal_environment
from thawloop.catalog.models import Modality, Tile
from thawloop.core.jobs import JobContext, job
from thawloop.core.planner import renew_statistics
from thawloop.core.services import audit
from thawloop.core.storage import artifact
from thawloop.registry.models import ModelVersion
from thawloop.registry.selectors import champion
from thawloop.registry.services import request_refresh
from thawloop.training.models import Retraining
from thawloop.training.services import finish_predicting, step_failed

if TYPE_CHECKING:
    from ml_backend.detector import Detector

TILES_AT_ONCE = 8
BATCHES_AHEAD = 2  # one being read while one is predicted
PROBLEMS_KEPT = 20


@dataclass
class Tally:
    """How many tiles were stored, skipped and failed. `problems` holds the first few error messages, by tile key."""

    stored: int = 0
    skipped: int = 0
    failed: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def fail(self, key: str, why: str) -> None:
        """Count a tile that could not be read."""
        self.failed += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems[key] = why

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for the job's row."""
        return {"stored": self.stored, "skipped": self.skipped, "failed": self.failed, "problems": self.problems}


@job(queue="gpu", on_failed=step_failed)
def predict(job: JobContext) -> dict[str, Any]:
    """Have a model version predict the tiles that it has not predicted yet.

    Args (in the job): `campaign`, `model_version`; `tiles` (primary keys), all of the campaign's if absent;
    `retraining`, if this is its last step. Tiles without imagery of the modality that annotators draw on are
    skipped and counted; a tile whose raster is damaged is recorded and does not stop the others.
    """
    campaign = Campaign.objects.get(pk=job.args["campaign"])
    version = ModelVersion.objects.get(pk=job.args["model_version"])
    pending = _pending(campaign, version, job.args.get("tiles"))
    tally = _predict(job, version, pending) if pending else Tally()
    if tally.failed and not tally.stored and not tally.skipped:
        raise DetectorRefused(f"None of {tally.failed} tiles could be read. {next(iter(tally.problems.values()))}")
    with transaction.atomic():
        if tally.stored:
            renew_statistics(tally.stored, Prediction, PredictedInstance)
            audit("training.predict", version, after={"campaign": campaign.name, **tally.to_json()})
        if retraining := job.args.get("retraining"):
            finish_predicting(Retraining.objects.get(pk=retraining))
        elif tally.stored and champion(campaign) == version:
            request_refresh(campaign)
    return tally.to_json()


def _pending(campaign: Campaign, version: ModelVersion, only: Sequence[int] | None) -> list[int]:
    tiles = campaign_tiles(campaign)
    if only is not None:
        tiles = tiles.filter(pk__in=only)
    predicted = Prediction.objects.filter(model_version=version).values("tile")
    # Neighbours in a row share blocks that GDAL has cached.
    return list(tiles.exclude(pk__in=predicted).order_by("row", "col").values_list("pk", flat=True).distinct())


def _predict(job: JobContext, version: ModelVersion, pending: Sequence[int]) -> Tally:
    from ml_backend.detector import load

    with refusals(job):
        detector = load(artifact(version.path), ready_device())
    names = [spec.name for spec in detector.modalities]
    drawn = drawn_on(version.campaign)
    needed = drawn.name if drawn and drawn.name in names else detector.config.anchor
    tally, done = Tally(), 0
    with (
        ChipReader(_modalities(version, names)) as reader,
        closing(_predicted(detector, reader, _batches(pending, reader), needed)) as batches,
        refusals(job),
    ):
        for batch in batches:
            job.check_cancelled()
            store_predictions(version.pk, batch.predictions)
            tally.stored += len(batch.predictions)
            tally.skipped += batch.skipped
            for key, why in batch.unreadable:
                tally.fail(key, why)
            done += batch.tiles
            job.progress(done / len(pending), f"tile {done} of {len(pending)}")
    return tally


@dataclass
class _Batch:
    """Some tiles: their chips once read, then their predictions."""

    tiles: int
    read: list[tuple[Tile, Chip]] = field(default_factory=list)
    skipped: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    predictions: list[TilePrediction] = field(default_factory=list)


def _batches(pending: Sequence[int], reader: ChipReader) -> Iterator[list[Tile]]:
    """The tiles, a few at a time; prepares the reader, which needs the database for it."""
    for start in range(0, len(pending), TILES_AT_ONCE):
        keys = pending[start : start + TILES_AT_ONCE]
        tiles = list(Tile.objects.filter(pk__in=keys).select_related("grid").order_by("row", "col"))
        reader.prepare(tiles)
        yield tiles


def _predicted(
    detector: "Detector", reader: ChipReader, batches: Iterator[list[Tile]], needed: str
) -> Generator[_Batch, None, None]:
    """Read and predict in two threads, a batch ahead of the caller, who stores the predictions.

    Only the caller's thread uses the database: it iterates over `batches`.
    """
    waiting: deque[Future[_Batch]] = deque()
    with ThreadPoolExecutor(1, "read") as reading, ThreadPoolExecutor(1, "predict") as predicting:
        try:
            for tiles in batches:
                # in a copy of this thread's context, so that log lines name the job
                read = reading.submit(copy_context().run, _read, reader, tiles, needed)
                waiting.append(predicting.submit(copy_context().run, _predict_batch, detector, read))
                if len(waiting) > BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read(reader: ChipReader, tiles: Sequence[Tile], needed: str) -> _Batch:
    """Read the chips of the tiles."""
    batch = _Batch(len(tiles))
    with gdal_environment():  # set per thread
        for tile in tiles:
            try:
                chip = reader.read(tile)
            except ChipUnreadable as error:
                batch.unreadable.append((tile.key, str(error)))
                continue
            if needed in chip.arrays:
                batch.read.append((tile, chip))
            else:
                batch.skipped += 1
    return batch


def _predict_batch(detector: "Detector", read: Future[_Batch]) -> _Batch:
    """Predict the tiles once they are read, and release their pixels."""
    from ml_backend.detector import ChipInput

    batch = read.result()
    results = detector.predict([ChipInput(chip.arrays, chip.valid) for _, chip in batch.read])
    for (tile, _), result in zip(batch.read, results, strict=True):
        uncertain = uncertainty(result.detections)
        batch.predictions.append(
            TilePrediction(tile, result.detections, result.embedding, uncertain.value, uncertain.parts, result.seconds)
        )
    batch.read = []
    return batch


def _modalities(version: ModelVersion, names: Sequence[str]) -> list[Modality]:
    known = Modality.objects.select_related("source").in_bulk(names, field_name="name")
    if missing := [name for name in names if name not in known]:
        raise DetectorRefused(
            f"{version.name} needs the modality `{missing[0]}`, which is not in the catalog any more: define it again."
        )
    return [known[name] for name in names]
