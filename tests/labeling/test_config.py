"""The labeling interface, as Label Studio's own validator sees it."""

import pytest

from labeling.labelstudio.config import labeling_config
from labeling.labelstudio.errors import LabelStudioRefused
from labeling.labelstudio.payloads import Preannotations
from tests.labeling.build import build_champion, build_prediction, build_tasks
from thawloop.campaigns.models import CampaignModality, LandformClass
from thawloop.catalog.models import Modality


@pytest.fixture
def interface(campaign):
    label_interface = pytest.importorskip("label_studio_sdk.label_interface")
    campaign.classes.add(LandformClass.objects.create(name="Thermokarst lake", color="#0000ff"))
    return label_interface.LabelInterface(labeling_config(campaign))


def test_label_studios_sdk_accepts_the_interface(interface):
    interface.validate()
    assert interface.get_control("polygons").labels == ["RTS", "Thermokarst lake"]
    assert interface.get_control("brush").labels == ["RTS brush", "Thermokarst lake brush"]
    assert interface.get_control("polygons").to_name == ["picture_rgb"]


def test_label_studios_sdk_accepts_our_pre_annotations(interface, campaign, task):
    prediction = build_prediction(task.tile, build_champion(campaign))
    written = Preannotations(campaign).of(task, prediction)
    assert [region["type"] for region in written["result"]] == ["polygonlabels", "brushlabels"]
    assert interface.validate_prediction(written, return_errors=True) == []
    assert interface.validate_prediction(Preannotations(campaign).of(task, None), return_errors=True) == []


def test_scores_grow_from_batch_to_batch_and_by_rank(campaign):
    tasks = [*build_tasks(campaign, 3), *build_tasks(campaign, 2)]
    scores = [Preannotations(campaign).score(task) for task in tasks]
    assert scores == sorted(set(scores))
    assert scores[0] == 0


def test_a_title_with_markup_is_text(campaign):
    Modality.objects.filter(name="ndvi").update(title='<Image name="x"/> & "NDVI"')
    assert "&lt;Image name=&quot;x&quot;/&gt; &amp; &quot;NDVI&quot;" in labeling_config(campaign)


def test_a_modality_that_is_not_shown_is_left_out_but_the_anchor_stays(campaign):
    CampaignModality.objects.filter(campaign=campaign).update(is_shown=False)
    config = labeling_config(campaign)
    assert "picture_rgb" in config
    assert "picture_ndvi" not in config


def test_a_campaign_without_anchor_or_class_is_refused(campaign):
    campaign.classes.clear()
    with pytest.raises(LabelStudioRefused, match="no landform class"):
        labeling_config(campaign)
    CampaignModality.objects.filter(campaign=campaign).update(is_anchor=False)
    with pytest.raises(LabelStudioRefused, match="no anchor modality"):
        labeling_config(campaign)


def test_modalities_that_label_studio_could_not_tell_apart_are_refused(campaign):
    for position, name in enumerate(["slope-2m", "slope_2m"], start=5):
        modality = Modality.objects.create(name=name, title=name, bands=["x"], range_min=0, range_max=1)
        CampaignModality.objects.create(campaign=campaign, modality=modality, position=position)
    with pytest.raises(LabelStudioRefused, match="slope-2m and slope_2m"):
        labeling_config(campaign)
