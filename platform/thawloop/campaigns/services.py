"""Changing a running campaign's settings."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from thawloop.campaigns.errors import BadCampaign
from thawloop.campaigns.models import Campaign
from thawloop.campaigns.settings import AcquisitionSettings, DetectorSettings
from thawloop.core.services import audit

EDITABLE = (
    *("title", "state", "score_threshold", "split_buffer", "licence", "citation"),
    *("acquisition", "detector"),
)


def change_campaign(campaign: Campaign, *, reason: str = "", **changes: Any) -> Campaign:
    """Change some of a campaign's settings; classes, grid and regions stay as labels and releases know them.

    Args:
        campaign: The campaign.
        reason: Why, in a person's words.
        changes: New values of fields in `EDITABLE`.

    Raises:
        BadCampaign: A field cannot be changed, or its value is not valid.
        SettingsError: `acquisition` or `detector` hold an unknown setting.
    """
    if fixed := sorted(set(changes) - set(EDITABLE)):
        raise BadCampaign(f"`{fixed[0]}` of a campaign is fixed; what can be changed is {', '.join(EDITABLE)}.")
    if "acquisition" in changes:
        AcquisitionSettings.from_json(changes["acquisition"])
    if "detector" in changes:
        inputs = campaign.campaign_modalities.filter(is_model_input=True).values_list("modality__name", flat=True)
        DetectorSettings.from_json(changes["detector"]).check_anchor(list(inputs))
    with transaction.atomic():
        row = Campaign.objects.select_for_update(of=("self",)).get(pk=campaign.pk)
        before = {name: getattr(row, name) for name in changes}
        for name, value in changes.items():
            setattr(row, name, value)
        try:
            row.clean_fields()
            row.validate_constraints()
        except ValidationError as error:
            raise BadCampaign(f"Campaign {row.name} cannot be changed so: {' '.join(error.messages)}") from error
        after = {name: getattr(row, name) for name in changes}
        if after != before:
            row.save(update_fields=list(changes))
            audit("labeling.change_campaign", row, before=before, after=after, reason=reason)
    return row
