"""A small campaign with real rasters; see `tests.releases.site`, imported late: it needs Django to be set up."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_django import Settings

if TYPE_CHECKING:
    from tests.releases.site import Site
    from thawloop.campaigns.models import Campaign


@pytest.fixture
def data_root(tmp_path: Path, settings: Settings) -> Path:
    """A folder files may be read from, and a place of its own for artifacts."""
    root = tmp_path / "data"
    root.mkdir()
    settings.THAWLOOP_DATA_ROOTS = [str(root)]
    settings.THAWLOOP_ARTIFACTS = str(tmp_path / "artifacts")
    return root


@pytest.fixture
def make_campaign(data_root: Path) -> "Callable[..., Campaign]":
    """Make the campaign, once per test: `make_campaign(val=True, overlap=16)`."""
    from tests.releases.site import make_campaign

    return partial(make_campaign, data_root)


@pytest.fixture
def campaign(db: None, make_campaign: "Callable[..., Campaign]") -> "Campaign":
    """Twelve train and six test tiles, nothing labelled."""
    return make_campaign()


@pytest.fixture
def site() -> "Site":
    """Geometry on tiles without overlap."""
    from tests.releases.site import Site

    return Site()


@pytest.fixture
def label_file(data_root: Path) -> Callable[..., Path]:
    """Write shapes as GeoJSON below the data root: `label_file(shape, (shape, properties), name="x.geojson")`."""
    from tests.releases.site import write_labels

    return lambda *shapes, name="labels.geojson": write_labels(data_root / name, *shapes)
