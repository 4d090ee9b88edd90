"""Every admin page of the room opens, and history cannot be changed there."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from labeling import models
from labeling.labelstudio.submissions import record_payload
from labeling.models import LabelImport, WebhookEvent
from tests.labeling.build import SQUARE, annotation, build_champion, build_prediction, polygon
from thawloop.campaigns.models import Campaign
from thawloop.core.models import Job

pytestmark = pytest.mark.usefixtures("neighbour")
REGISTERED = [model for model in map(models.__dict__.get, models.__all__) if model in admin.site._registry]


@pytest.fixture
def everything(task):
    task.prediction = build_prediction(task.tile, build_champion(task.campaign))
    task.save()
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_payload(task, annotation(8, {"junk": 1}))
    WebhookEvent.objects.create(campaign=task.campaign, action="X", payload={})
    LabelImport.objects.create(campaign=task.campaign, file_name="x.gpkg", checksum="0" * 64)
    return task


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model.__name__)
def test_lists_and_rows_open(admin_client, everything, model):
    name = f"admin:labeling_{model._meta.model_name}"
    assert admin_client.get(reverse(f"{name}_changelist")).status_code == 200
    row = model.objects.first()
    assert row is not None
    assert admin_client.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200


@pytest.mark.parametrize("name", ["annotation", "labelrevision", "label", "annotationtask", "webhookevent"])
def test_history_can_only_be_looked_at(admin_client, everything, name):
    row = admin.site._registry[
        getattr(models, next(n for n in models.__all__ if n.lower() == name))
    ].model.objects.first()
    assert admin_client.post(reverse(f"admin:labeling_{name}_change", args=[row.pk]), {}).status_code == 403
    assert (
        admin_client.post(reverse(f"admin:labeling_{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    )
    assert admin_client.get(reverse(f"admin:labeling_{name}_add")).status_code == 403


def test_a_campaign_is_edited_through_its_service(admin_client, everything):
    campaign = everything.campaign
    address = reverse("admin:campaigns_campaign_change", args=[campaign.pk])
    fields = {"title": "Peel", "state": "paused", "score_threshold": "0.4", "split_buffer": "0"}
    fields |= {"acquisition": "{}", "detector": "{}"}
    inlines = {}
    for prefix in ("campaign_modalities", "campaign_regions"):
        inlines |= {f"{prefix}-{name}": "0" for name in ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS")}
    assert admin_client.post(address, fields | inlines).status_code == 302
    campaign.refresh_from_db()
    assert (campaign.title, campaign.state, campaign.score_threshold) == ("Peel", "paused", 0.4)
    bad = fields | inlines | {"acquisition": '{"batch_sise": 1}'}
    assert "batch_sise" in admin_client.post(address, bad, follow=True).content.decode()
    assert Campaign.objects.get(pk=campaign.pk).acquisition == {}


def test_syncing_from_the_admin_asks_for_a_job(admin_client, everything):
    data = {"action": "sync", "_selected_action": [everything.campaign.pk]}
    admin_client.post(reverse("admin:campaigns_campaign_changelist"), data)
    assert Job.objects.get().function == "labeling.labelstudio.jobs.synchronise"


def test_webhooks_are_processed_again_only_by_who_may_sync(client, everything, django_user_model):
    user = django_user_model.objects.create_user("looker", is_staff=True)
    user.groups.add(Group.objects.get(name="annotator"))
    client.force_login(user)
    WebhookEvent.objects.update(processed=timezone.now())
    data = {"action": "process_again", "_selected_action": [WebhookEvent.objects.get().pk]}
    address = reverse("admin:labeling_webhookevent_changelist")
    client.post(address, data)
    assert WebhookEvent.objects.get().processed is not None
    user.groups.set([Group.objects.get(name="lead")])
    client.post(address, data)
    assert WebhookEvent.objects.get().processed is None
