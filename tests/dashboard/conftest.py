"""Who looks at the pages, and at what. Models are imported inside: conftests are read before Django is set up."""

from typing import Any

import pytest


@pytest.fixture
def campaign(db: None) -> Any:
    """A campaign with a champion, a batch of three tasks and a predicted tile."""
    from tests.labeling.build import build_campaign, build_champion, build_prediction, build_tasks

    campaign = build_campaign()
    champion = build_champion(campaign)
    tasks = build_tasks(campaign, 3)
    build_prediction(tasks[0].tile, champion)
    return campaign


def _client(role: str) -> Any:
    from django.contrib.auth.models import Group, User
    from django.test import Client

    user = User.objects.create_user(f"a-{role}", password="long-enough-password")
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def lead(db: None) -> Any:
    """A project lead's browser."""
    return _client("lead")


@pytest.fixture
def annotator(db: None) -> Any:
    """An annotator's browser."""
    return _client("annotator")
