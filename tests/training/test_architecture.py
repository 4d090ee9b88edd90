"""What a campaign asks for as a model, and what a checkpoint says it is."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts.stages import PRETRAINING_SEEDS
from thawloop.campaigns.settings import DetectorSettings
from thawloop.registry.cards import read_card
from thawloop.registry.errors import ModelRefused
from thawloop.training.architecture import Architecture
from thawloop.training.selectors import CampaignState
from thawloop.training.selectors.plan import detector_config, plan_training

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign


@pytest.mark.django_db
@pytest.mark.parametrize(("setting", "anchor"), [("", "rgb"), ("dem", "dem"), ("best", "rgb")])
def test_a_model_builds_on_what_people_draw_on_unless_the_settings_name_another(
    campaign: "Campaign", setting: str, anchor: str
) -> None:
    campaign.detector = {"anchor": setting}
    assert Architecture.wanted(campaign).anchor == anchor


@pytest.mark.django_db
def test_detectors_of_one_modality_see_other_turns_of_tiles_than_the_joint_training(campaign: "Campaign") -> None:
    stages = plan_training(CampaignState(campaign), Architecture.wanted(campaign)).stages
    seeds = [detector_config(DetectorSettings(), stage, seed=5)["seed"] for stage in stages]
    assert seeds == [5 + PRETRAINING_SEEDS, 5 + PRETRAINING_SEEDS, 5]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ([], "lacks classes, config, format, modalities, weights"),
        ({"config": {}, "classes": []}, "lacks format, modalities, weights"),
    ],
)
def test_a_card_without_what_is_needed_is_refused(tmp_path: Path, card: object, words: str) -> None:
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelRefused, match=words):
        read_card(tmp_path)
