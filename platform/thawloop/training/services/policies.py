"""A campaign's retrain policy."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.forms.models import model_to_dict

from thawloop.campaigns.models import Campaign
from thawloop.core.jobs import enqueue
from thawloop.core.services import audit
from thawloop.training.errors import RetrainingRefused
from thawloop.training.models import RetrainPolicy

FIELDS = ("enabled", "min_new_tiles", "min_new_labels", "cooldown_minutes", "gate_min_gain")


def set_policy(campaign: Campaign, **values: Any) -> RetrainPolicy:
    """Give a campaign a retrain policy, or change the one it has; what is not named stays or takes its default.

    Raises:
        RetrainingRefused: an unknown field or a value that makes no sense.
    """
    if unknown := sorted(set(values) - set(FIELDS)):
        raise RetrainingRefused(f"A retrain policy has no `{unknown[0]}`; it has {', '.join(FIELDS)}.")
    with transaction.atomic():
        Campaign.objects.select_for_update(of=("self",)).get(pk=campaign.pk)
        known = RetrainPolicy.objects.filter(campaign=campaign).first()
        policy = known or RetrainPolicy(campaign=campaign)
        before = model_to_dict(policy, fields=FIELDS) if known else None
        for name, value in values.items():
            setattr(policy, name, value)
        try:
            policy.full_clean()
        except ValidationError as error:
            field, messages = next(iter(error.message_dict.items()))
            raise RetrainingRefused(f"The retrain policy's `{field}` makes no sense: {messages[0]}") from error
        after = model_to_dict(policy, fields=FIELDS)
        if before != after:
            policy.save()
            audit("training.set_policy", policy, before=before, after=after)
    return policy


def ask_policy(campaign: Campaign, **signal: Any) -> None:
    """Have a campaign's policy asked soon, because labels arrived (`labeling.signals.labels_arrived`)."""
    if RetrainPolicy.objects.filter(campaign=campaign, enabled=True).exists():
        enqueue("thawloop.training.jobs.consider", key=f"consider:{campaign.pk}", args={"campaign": campaign.pk})
