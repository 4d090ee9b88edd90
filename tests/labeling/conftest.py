"""Fixtures of the labeling room. Models are imported inside: conftests are read before Django is set up."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def neighbour(db: None) -> Iterator[Any]:
    """Another campaign on the same tiles, made first: whatever a test does to its own one leaves it as it was."""
    from tests.labeling.build import build_neighbour, rows_of

    neighbour = build_neighbour()
    before = rows_of(neighbour)
    yield neighbour
    assert rows_of(neighbour) == before


@pytest.fixture
def campaign(db: None) -> Any:
    """The Peel campaign: RTS, RGB and NDVI, sixteen tiles for training."""
    from tests.labeling.build import build_campaign

    return build_campaign()


@pytest.fixture
def task(campaign: Any) -> Any:
    """An OPEN task of the campaign, number 1 in Label Studio."""
    from tests.labeling.build import build_tasks

    (task,) = build_tasks(campaign, 1)
    task.ls_task_id, task.state = 1, "open"
    task.save()
    return task
