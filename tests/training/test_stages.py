"""The dry run, a retraining's runs and the detector's `stages` name the same trainings."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_backend.detector import DetectorConfig, read_dataset
from ml_backend.detector.training import plan_trainings
from tests.training.world import TINY, queued
from thawloop.core.jobs import run_inline
from thawloop.core.storage import artifact
from thawloop.training.selectors import CampaignState, outlook
from thawloop.training.services import start_retraining

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign


@pytest.fixture
def with_val(data_root: Path) -> "Campaign":
    """RGB and DEM, with labels on train, test and val tiles: an anchor can be chosen."""
    from tests.releases.site import Site, make_campaign, write_labels
    from thawloop.releases.services import import_labels

    campaign = make_campaign(data_root, val=True, dem_columns=9)
    squares = [Site().square(*place) for place in ((0, 0), (1, 1), (5, 0), (6, 2), (8, 0))]
    import_labels(campaign, write_labels(data_root / "truth.geojson", *squares), coverage="regions")
    return campaign


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("choices", "stages"),
    [
        ({}, ["pretrain-rgb", "pretrain-dem", "finetune"]),
        ({"anchor": "best"}, ["pretrain-rgb", "pretrain-dem", "finetune"]),
        ({"fusion": "stack"}, ["pretrain-rgb", "finetune"]),
        ({"fusion": "stack", "anchor": "dem"}, ["pretrain-dem", "finetune"]),
        ({"fusion": "stack", "anchor": "best"}, ["pretrain-rgb", "pretrain-dem", "finetune"]),
    ],
)
def test_one_campaign_has_the_same_stages_everywhere(
    with_val: "Campaign", choices: dict[str, str], stages: list[str]
) -> None:
    with_val.detector = {**TINY, **choices}
    with_val.save()
    sentences = outlook(CampaignState(with_val)).stages[1 : 1 + len(stages)]
    assert [sentence.split()[:2] for sentence in sentences] == [
        *(["Pretrain", stage.removeprefix("pretrain-")] for stage in stages[:-1]),
        ["Train", "nano"],
    ]

    retraining = start_retraining(with_val, reason="x")
    (release,) = [job for job in queued() if job.key.endswith(":release")]
    run_inline(release.pk)
    runs = list(retraining.runs.order_by("id"))
    assert [f"pretrain-{run.modality.name}" if run.modality else run.stage for run in runs] == stages

    retraining.refresh_from_db()
    folder = artifact(retraining.release.path)
    asked = [DetectorConfig.from_json(run.config).resolve(read_dataset(folder)) for run in runs]
    trainings = plan_trainings(folder, asked[-1], choose_anchor=choices.get("anchor") == "best")
    assert [training.name for training in trainings] == stages
    assert [training.config for training in trainings] == asked, "and they train the same"
