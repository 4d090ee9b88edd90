"""A campaign whose tasks Label Studio asks predictions for."""

from typing import Any

import pytest


@pytest.fixture
def campaign(db: None) -> Any:
    """The Peel campaign as project 6 in Label Studio."""
    from tests.labeling.build import build_campaign

    campaign = build_campaign()
    campaign.ls_project_id = 6
    campaign.save()
    return campaign
