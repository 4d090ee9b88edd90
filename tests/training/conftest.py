"""A labelled campaign that can be retrained, and ways to make models and drive jobs (see `tests.training.world`)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_django import Settings

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign


@pytest.fixture
def data_root(tmp_path: Path, settings: Settings) -> Path:
    """A folder files may be read from, a place for artifacts, and one thread on the CPU."""
    root = tmp_path / "data"
    root.mkdir()
    settings.THAWLOOP_DATA_ROOTS = [str(root)]
    settings.THAWLOOP_ARTIFACTS = str(tmp_path / "artifacts")
    settings.THAWLOOP_DEVICE = "cpu"
    settings.THAWLOOP_TORCH_THREADS = 1
    return root


@pytest.fixture
def neighbour(db: None) -> "Iterator[Campaign]":
    """Another campaign in the same database, made first: whatever a test does to its own one leaves it as it was."""
    from tests.training.world import as_stored, make_neighbour

    rows = make_neighbour()
    before = as_stored(rows)
    yield rows[0]
    assert as_stored(rows) == before


@pytest.fixture
def campaign(db: None, data_root: Path) -> "Campaign":
    """Twelve train and six test tiles of RGB (and DEM on some), nothing labelled."""
    from tests.releases.site import make_campaign

    return make_campaign(data_root)


@pytest.fixture
def labelled(campaign: "Campaign", data_root: Path) -> "Campaign":
    """The same, with squares on four train and two test tiles, and every tile known."""
    from tests.training.world import label_everything

    label_everything(campaign, data_root)
    return campaign


@pytest.fixture
def make_model(data_root: Path) -> Callable[..., object]:
    """`make_model(campaign, ap50=0.4)`: a registered version with files, and an evaluation on its release."""
    from tests.training.world import make_model

    return make_model
