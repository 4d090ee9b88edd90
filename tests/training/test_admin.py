"""The training room's admin pages: they open, explain, and act through services."""

from typing import TYPE_CHECKING

import pytest
from django.urls import reverse

from tests.training.world import made_by, make_model, policy
from thawloop.core.models import AuditEntry
from thawloop.registry.models import Promotion
from thawloop.registry.selectors import champion
from thawloop.registry.services import promote
from thawloop.training.models import Retraining, RetrainPolicy, TrainingRun

if TYPE_CHECKING:
    from django.test import Client

    from thawloop.campaigns.models import Campaign

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "name",
    [
        *("training_retrainpolicy", "training_retraining", "training_trainingrun", "training_evaluation"),
        *("registry_modelversion", "registry_modelalias", "registry_promotion"),
    ],
)
def test_lists_and_rows_open(labelled: "Campaign", admin_client: "Client", name: str) -> None:
    policy(labelled)
    retraining = Retraining.objects.create(campaign=labelled, number=1, reason="x", state="done")
    promote(made_by(retraining, 0.5), reason="first", request_predictions_now=False)
    TrainingRun.objects.create(retraining=retraining, stage="finetune", config={}, seed=1)
    page = admin_client.get(reverse(f"admin:{name}_changelist"))
    assert page.status_code == 200
    row = page.context["cl"].result_list[0]
    assert admin_client.get(reverse(f"admin:{name}_change", args=[row.pk])).status_code == 200


def test_policy_page_says_why_not_now_and_saving_is_audited(campaign: "Campaign", admin_client: "Client") -> None:
    row = policy(campaign)
    url = reverse("admin:training_retrainpolicy_change", args=[row.pk])
    assert "No training tile is labelled yet." in admin_client.get(url).content.decode()
    form = {"enabled": "on", "min_new_tiles": 3, "min_new_labels": 0, "cooldown_minutes": 0, "gate_min_gain": 0.01}
    assert admin_client.post(url, form).status_code == 302
    assert RetrainPolicy.objects.get().min_new_tiles == 3
    assert AuditEntry.objects.get(action="training.set_policy").after["min_new_tiles"] == 3


def test_model_is_promoted_from_the_list(campaign: "Campaign", admin_client: "Client") -> None:
    version = make_model(campaign, 1)
    url = reverse("admin:registry_modelversion_changelist")
    admin_client.post(url, {"action": "make_champion", "_selected_action": [version.pk]})
    assert champion(campaign) == version
    again = admin_client.post(url, {"action": "make_champion", "_selected_action": [version.pk]}, follow=True)
    assert "is the champion of" in again.content.decode()
    assert Promotion.objects.count() == 1
