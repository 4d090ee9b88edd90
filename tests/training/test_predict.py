"""Predicting tiles with a real network (of random weights) from real rasters."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labeling.models import Prediction
from tests.releases.site import PERIOD, Site, tiles
from thawloop.campaigns.models import CampaignRegion
from thawloop.catalog.chips import ChipReader
from thawloop.catalog.models import Modality, Scene
from thawloop.catalog.services import create_tiles, define_modality, define_region, ensure_builtin
from thawloop.core.jobs import run_inline
from thawloop.core.models import AuditEntry, Job
from thawloop.registry.models import ModelVersion
from thawloop.registry.services import promote, request_predictions

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("neighbour")]


@pytest.fixture
def network(campaign: "Campaign", data_root: Path) -> ModelVersion:
    """A registered model version whose weights are those a training would begin with."""
    from tests.training.world import fresh_network

    return fresh_network(campaign)


def predict(campaign: "Campaign", version: ModelVersion, **wishes: Any) -> Job:
    return run_inline(request_predictions(campaign, version, **wishes).pk)


def few(campaign: "Campaign", count: int) -> list[int]:
    """Primary keys of the first test tiles."""
    return [tile.pk for tile in tiles(campaign, "test")[:count]]


def test_every_tile_is_predicted_once_with_embedding_and_uncertainty(
    campaign: "Campaign", network: ModelVersion
) -> None:
    job = predict(campaign, network, tiles=few(campaign, 4))
    assert job.state == "succeeded", job.error
    assert job.result == {"stored": 4, "skipped": 0, "failed": 0, "problems": {}}
    rows = list(Prediction.objects.all())
    assert len(rows) == 4
    assert all(len(bytes(row.embedding)) % 4 == 0 and 0 <= row.uncertainty <= 1 for row in rows)
    assert {"mask_entropy", "class_entropy", "stage_disagreement"} <= set(rows[0].uncertainty_parts)
    assert AuditEntry.objects.get(action="training.predict").after["stored"] == 4

    stamps = dict(Prediction.objects.values_list("pk", "created"))
    again = predict(campaign, network, tiles=few(campaign, 6))
    assert again.result["stored"] == 2
    assert stamps.items() <= dict(Prediction.objects.values_list("pk", "created")).items()


def test_tile_without_anchor_imagery_is_skipped_and_counted(campaign: "Campaign", network: ModelVersion) -> None:
    far = define_region("site-far", Site().block(30, 0, 1, 1))
    CampaignRegion.objects.create(campaign=campaign, region=far, split="train")
    create_tiles(campaign.grid, far, **PERIOD)
    job = predict(campaign, network, tiles=[far.tiles.get().pk, *few(campaign, 1)])
    assert (job.state, job.result["stored"], job.result["skipped"]) == ("succeeded", 1, 1)


def test_a_tile_without_the_models_own_anchor_is_predicted_all_the_same(campaign: "Campaign", data_root: Path) -> None:
    """People draw on RGB, which is everywhere; the DEM that the model builds on is not."""
    from tests.training.world import fresh_network

    campaign.detector = {"anchor": "dem"}
    campaign.save()
    network = fresh_network(campaign)
    assert network.card["config"]["anchor"] == "dem"
    job = predict(campaign, network, tiles=few(campaign, 2))
    assert (job.state, job.result["stored"], job.result["skipped"]) == ("succeeded", 2, 0)


def test_damaged_raster_is_recorded_and_does_not_stop_the_other_tiles(
    campaign: "Campaign", network: ModelVersion, data_root: Path
) -> None:
    (data_root / "dem.tif").write_bytes(b"no raster at all")
    hurt = tiles(campaign, "train")[0]  # has a DEM; the test tiles have none
    job = predict(campaign, network, tiles=[hurt.pk, *few(campaign, 2)])
    assert (job.state, job.result["stored"], job.result["failed"]) == ("succeeded", 2, 1)
    assert list(job.result["problems"]) == [hurt.key]
    assert "dem.tif" in job.result["problems"][hurt.key]


def test_when_no_tile_can_be_read_the_job_fails_with_the_sentence(campaign: "Campaign", network: ModelVersion) -> None:
    Scene.objects.filter(modality__name="rgb").update(uri="/gone/rgb.tif")
    job = predict(campaign, network)
    assert job.state == "failed"
    assert job.error.startswith("None of 18 tiles could be read.")


def test_damaged_checkpoint_is_refused_in_a_sentence(campaign: "Campaign", network: ModelVersion) -> None:
    from thawloop.core.storage import artifact

    with (artifact(network.path) / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    job = predict(campaign, network)
    assert (job.state, job.attempt) == ("failed", 1)
    assert "truncated or altered" in job.error


def test_champions_new_predictions_are_shown_to_annotators(campaign: "Campaign", network: ModelVersion) -> None:
    predict(campaign, network, tiles=[tiles(campaign, "train")[0].pk])
    assert not Job.objects.filter(function="labeling.labelstudio.jobs.refresh").exists()
    promote(network, reason="x", request_predictions_now=False)
    predict(campaign, network, tiles=[tiles(campaign, "train")[1].pk])
    assert Job.objects.filter(function="labeling.labelstudio.jobs.refresh").count() == 1


def test_a_prepared_reader_asks_the_database_nothing(campaign: "Campaign", django_assert_num_queries: Any) -> None:
    """Chips are read in a thread of its own, which has no business with the database."""
    derived = [ensure_builtin("relative_elevation"), ensure_builtin("slope")]
    redness = define_modality(
        "redness",
        bands=["redness"],
        range_min=0,
        range_max=9,
        derivation="expression",
        expression="rgb.red / rgb.green",
    )
    with ChipReader([*Modality.objects.filter(name__in=["rgb", "dem"]), *derived, redness]) as reader:
        seen = tiles(campaign, "train")[:2]
        reader.prepare(seen)
        with django_assert_num_queries(0):
            chips = [reader.read(tile) for tile in seen]
    assert set(chips[0].arrays) == {"rgb", "dem", "relative_elevation", "slope", "redness"}


def test_what_the_network_cannot_do_ends_the_job_with_its_sentence(
    campaign: "Campaign", network: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happens in another thread, while a further batch is being read."""
    from ml_backend.detector import DeviceError
    from ml_backend.detector.inference import network as inference

    looked, detect = [], inference.detect

    def full(*arguments: Any) -> Any:
        looked.append(1)
        if len(looked) > 1:
            raise DeviceError("The GPU's memory does not hold a single tile: predict on the CPU.")
        return detect(*arguments)

    monkeypatch.setattr(inference, "detect", full)
    job = predict(campaign, network)
    assert (job.state, job.error) == ("failed", "The GPU's memory does not hold a single tile: predict on the CPU.")
    assert Prediction.objects.count() in (0, 8)  # whole batches only
