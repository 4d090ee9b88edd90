"""The leads' pages over HTTP, as a browser asks for them."""

import re

import pytest
from django.test import Client
from django.urls import reverse

from tests.labeling.build import build_campaign, build_champion
from thawloop.campaigns.models import Campaign
from thawloop.core.jobs import enqueue
from thawloop.core.models import AuditEntry, Job
from thawloop.dashboard.views import PANELS
from thawloop.registry.selectors import champion


def _do(client: Client, campaign: Campaign, action: str, **form: str) -> str:
    answer = client.post(reverse("action", args=[campaign.name, action]), form, headers={"HX-Request": "true"})
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def test_who_is_not_logged_in_is_sent_to_the_login_page(client: Client, campaign: Campaign) -> None:
    answer = client.get(reverse("campaign", args=[campaign.name]))
    assert answer.status_code == 302
    assert answer["Location"].startswith(reverse("login"))


def test_campaign_page_and_every_panel_answer(lead: Client, campaign: Campaign) -> None:
    page = lead.get(reverse("campaign", args=[campaign.name])).content.decode()
    assert campaign.title in page
    for panel in PANELS:
        assert reverse("panel", args=[campaign.name, panel]) in page
        assert lead.get(reverse("panel", args=[campaign.name, panel])).status_code == 200


def test_loop_panel_says_why_it_does_not_retrain(lead: Client, campaign: Campaign) -> None:
    panel = lead.get(reverse("panel", args=[campaign.name, "loop"])).content.decode()
    assert "No training tile is labelled yet." in panel
    assert champion(campaign).name in panel


def test_retraining_without_labels_is_refused_in_a_sentence_and_starts_nothing(
    lead: Client, campaign: Campaign
) -> None:
    told = _do(lead, campaign, "retrain")
    assert "message error" in told
    assert not campaign.retrainings.exists()


def test_lead_promotes_and_rolls_back(lead: Client, campaign: Campaign, django_capture_on_commit_callbacks) -> None:
    first = champion(campaign)
    second = build_champion(campaign, number=2)
    with django_capture_on_commit_callbacks():
        assert "is the champion now" in _do(lead, campaign, "promote", version=first.name)
        assert "is the champion now" in _do(lead, campaign, "promote", version=second.name)
        assert f"{first.name} is the champion again" in _do(lead, campaign, "roll-back")
    assert champion(campaign) == first
    assert AuditEntry.objects.filter(object_type="registry.modelversion", actor_name="a-lead").exists()


def test_models_panel_says_what_each_began_with_and_builds_on(lead: Client, campaign: Campaign) -> None:
    first, second, alone = champion(campaign), build_champion(campaign, number=2), build_champion(campaign, number=3)
    modalities = [{"name": "rgb"}, {"name": "dem"}]
    first.card = {"init": {"rgb": "a", "dem": "b"}, "modalities": modalities, "anchor": "dem"}
    first.save()
    second.card, second.parent = {"init": {"all": "c"}, "modalities": modalities, "anchor": "rgb"}, first
    second.save()
    alone.card = {"init": {}, "modalities": modalities[:1], "anchor": "rgb"}
    alone.save()
    panel = lead.get(reverse("panel", args=[campaign.name, "models"])).content.decode()
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in panel.split("<tr>")[2:]]
    assert [row[3:5] for row in cells] == [["scratch", ""], [first.name, "rgb"], ["dem, rgb", "dem"]]


@pytest.mark.parametrize("action", ["retrain", "cancel-retraining", "promote", "roll-back", "cancel-job"])
def test_annotators_may_look_but_not_act(annotator: Client, campaign: Campaign, action: str) -> None:
    assert annotator.get(reverse("campaign", args=[campaign.name])).status_code == 200
    assert annotator.post(reverse("action", args=[campaign.name, action])).status_code == 403


def test_unknown_model_version_is_refused_by_name(lead: Client, campaign: Campaign) -> None:
    assert "no model version" in _do(lead, campaign, "promote", version="peel-v99")


def test_queued_job_is_shown_and_cancelled(
    lead: Client, campaign: Campaign, django_capture_on_commit_callbacks
) -> None:
    with django_capture_on_commit_callbacks():
        job = enqueue("ml_backend.jobs.predict", key="predict:test", args={"campaign": campaign.pk})
    assert "Predict" in lead.get(reverse("panel", args=[campaign.name, "jobs"])).content.decode()
    _do(lead, campaign, "cancel-job", job=str(job.pk))
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED


def test_another_campaigns_job_cannot_be_cancelled_from_here(
    lead: Client, campaign: Campaign, django_capture_on_commit_callbacks
) -> None:
    other = Campaign.objects.create(
        name="other",
        title="Other",
        grid=campaign.grid,
        period="2021",
        period_start="2021-06-01",
        period_end="2021-09-30",
    )
    with django_capture_on_commit_callbacks():
        job = enqueue("ml_backend.jobs.predict", key="predict:other", args={"campaign": other.pk})
    assert "not a job of this campaign" in _do(lead, campaign, "cancel-job", job=str(job.pk))
    job.refresh_from_db()
    assert job.state == Job.State.QUEUED


def test_garbage_instead_of_a_job_id_is_a_sentence(lead: Client, campaign: Campaign) -> None:
    assert "not a job of this campaign" in _do(lead, campaign, "cancel-job", job="nonsense")


def test_campaign_list_costs_the_same_for_one_campaign_as_for_five(
    lead: Client, campaign: Campaign, django_assert_max_num_queries
) -> None:
    for number in range(4):
        build_campaign(f"more-{number}")
    with django_assert_max_num_queries(6):
        answer = lead.get(reverse("campaigns"))
    assert answer.content.decode().count("card link") == 5


def test_learning_curve_is_json(lead: Client, campaign: Campaign) -> None:
    assert lead.get(reverse("learning-curve", args=[campaign.name])).json() == {"points": []}


def test_tile_panel_shows_pictures_task_and_prediction(lead: Client, campaign: Campaign) -> None:
    tile = campaign.tasks.earliest("rank").tile
    panel = lead.get(reverse("tile", args=[campaign.name, tile.key])).content.decode()
    assert panel.count("<img") == 2
    assert "RTS 0.90" in panel
