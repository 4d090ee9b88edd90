"""Acquisition from rows to rows: candidates in, a batch of tasks with its provenance out."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from django.db.models import F

from labeling.models import AcquisitionBatch, AnnotationTask
from labeling.services import acquire, store_prediction
from labeling.services.batches import AcquisitionRefused
from tests.releases.site import tiles
from tests.training.world import drive, make_model
from thawloop.core.errors import Conflict
from thawloop.core.jobs import cancel_job, run_inline
from thawloop.core.models import AuditEntry, Job
from thawloop.registry.services import promote

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign
    from thawloop.catalog.models import Tile
    from thawloop.registry.models import ModelVersion

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("neighbour")]


def acquired(campaign: "Campaign", **wishes: Any) -> AcquisitionBatch:
    job = run_inline(acquire(campaign, **wishes).pk)
    assert job.state == "succeeded", job.error
    return AcquisitionBatch.objects.get(number=job.result["batch"], campaign=campaign)


def refused(campaign: "Campaign", **wishes: Any) -> str:
    job = run_inline(acquire(campaign, **wishes).pk)
    assert job.state == "failed"
    return str(job.error)


@pytest.fixture
def small(campaign: "Campaign") -> "Campaign":
    campaign.acquisition = {"batch_size": 4, "initial_batch_size": 5, "random_fraction": 0.25, "seed": 100}
    campaign.save()
    return campaign


def champion_that_said(campaign: "Campaign", uncertainty: dict[int, float]) -> "ModelVersion":
    """A champion that predicted all tiles; every tile has a direction of its own."""
    version = make_model(campaign, 1)
    everything = [*tiles(campaign, "train"), *tiles(campaign, "test")]
    for number, tile in enumerate(everything):
        embedding = np.eye(len(everything), dtype=np.float32)[number]
        store_prediction(tile, version.pk, [], embedding=embedding, uncertainty=uncertainty.get(number, 0.0), parts={})
    promote(version, reason="x", request_predictions_now=False)
    return version


def test_cold_start_spreads_tasks_over_the_training_tiles(small: "Campaign") -> None:
    batch = acquired(small)
    tasks = list(batch.tasks.select_related("tile"))
    assert (batch.number, batch.strategy, batch.seed, batch.candidates, batch.model_version) == (
        1,
        "space_filling",
        101,
        12,
        None,
    )
    assert len(tasks) == 5
    assert {task.tile for task in tasks} <= set(tiles(small, "train"))
    assert sorted(task.rank for task in tasks) == [0, 1, 2, 3, 4]
    assert sum(task.arm == "random" for task in tasks) == 1
    assert all(task.state == "pending" and task.score is None and task.prediction is None for task in tasks)
    assert Job.objects.filter(function="labeling.labelstudio.jobs.push", args={"campaign": small.pk}).count() == 1
    assert AuditEntry.objects.get(action="labeling.record_batch").after["acquired"] == 4


def test_a_choice_waits_while_the_champion_is_predicting(small: "Campaign") -> None:
    promote(make_model(small), reason="x")
    (prediction,) = Job.objects.filter(function="ml_backend.jobs.predict")
    job = run_inline(acquire(small).pk)
    assert (job.state, job.attempt) == ("queued", 1)
    assert job.error == "Waiting until site-v1 has predicted the campaign's tiles."
    cancel_job(prediction)
    assert "has predicted none of the tiles" in str(run_inline(job.pk).error)


def test_batches_share_no_tile_and_end_with_the_tiles(small: "Campaign") -> None:
    for number in (1, 2, 3):
        assert acquired(small).number == number
    assert AnnotationTask.objects.filter(campaign=small).count() == 12
    assert "is left to annotate" in refused(small)
    assert small.batches.count() == 3


def test_most_uncertain_tiles_come_first_with_scores_reasons_and_pre_annotations(small: "Campaign") -> None:
    version = champion_that_said(small, {2: 0.9, 5: 0.8, 7: 0.7, 9: 0.6, 15: 1.0})
    batch = acquired(small, strategy="uncertainty")
    train = tiles(small, "train")
    chosen = list(batch.tasks.filter(arm="acquired").order_by("rank"))
    control = batch.tasks.get(arm="random").tile
    expected = [tile for tile in (train[2], train[5], train[7], train[9]) if tile != control][:3]
    assert [task.tile for task in chosen] == expected
    assert chosen[0].score == pytest.approx(0.9) or control == train[2]
    assert all(task.prediction.model_version == version and task.prediction.tile == task.tile for task in chosen)
    assert [task.score_parts["uncertainty_rank"] for task in chosen] == [0.0, 1.0, 2.0]
    assert batch.model_version == version
    assert batch.parameters["embedding"] == "site-v1 [18]"


def test_same_seed_and_state_give_the_same_batch(small: "Campaign") -> None:
    champion_that_said(small, {number: number / 20 for number in range(12)})

    def contents(batch: AcquisitionBatch) -> list[tuple["Tile", str, int]]:
        return [(task.tile, task.arm, task.rank) for task in batch.tasks.select_related("tile").order_by("rank")]

    first = acquired(small, seed=5)
    seen = contents(first)
    first.tasks.all().delete()
    assert contents(acquired(small, seed=5)) == seen


def test_what_annotators_have_already_is_not_covered_again(labelled: "Campaign", small: "Campaign") -> None:
    """Labels cover the train region, so there is nothing to acquire; only then does it say so."""
    champion_that_said(small, {})
    assert "is left to annotate" in refused(small)


def test_champion_that_predicted_nothing_says_what_to_do(small: "Campaign") -> None:
    promote(make_model(small, 1), reason="x", request_predictions_now=False)
    assert "run `predict --campaign site` first" in refused(small)
    assert not AcquisitionBatch.objects.exists()


def test_job_that_died_after_recording_its_batch_does_not_make_a_second_one(small: "Campaign") -> None:
    job = acquire(small)
    run_inline(job.pk)
    Job.objects.filter(pk=job.pk).update(state="queued", finished=None, attempt=F("attempt") + 1)
    again = run_inline(job.pk)
    assert again.result["batch"] == 1
    assert small.batches.count() == 1
    assert small.tasks.count() == 5


def test_two_requests_at_once_are_one_job(small: "Campaign") -> None:
    assert acquire(small) == acquire(small)
    assert len(drive()) == 1
    assert small.batches.count() == 1


def test_requests_that_make_no_sense_are_refused_at_once(small: "Campaign") -> None:
    with pytest.raises(AcquisitionRefused, match="batch of 0"):
        acquire(small, count=0)
    with pytest.raises(AcquisitionRefused, match="no strategy `margin`"):
        acquire(small, strategy="margin")
    small.state = "paused"
    with pytest.raises(Conflict, match="paused"):
        acquire(small)
    assert not Job.objects.exists()
