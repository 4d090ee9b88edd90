"""A submission that was not understood in full makes no statement about its tile, wherever labelled tiles count."""

from typing import Any

import pytest

from labeling.labelstudio.config import anchor_picture
from labeling.labelstudio.submissions import record_payload
from labeling.models import AnnotationTask
from labeling.selectors import label_stock
from tests.releases.site import SIZE, annotate, tiles
from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Tile
from thawloop.releases.services import freeze_release

pytestmark = pytest.mark.django_db
TRIANGLE = [[(10.0, 10.0), (30.0, 10.0), (30.0, 30.0)]]


def region(campaign: Campaign, name: str, points: list[tuple[float, float]], **value: Any) -> dict[str, Any]:
    """A polygon as a browser submits it."""
    percent = [[100 * x / SIZE, 100 * y / SIZE] for x, y in points]
    return {
        "id": name,
        "type": "polygonlabels",
        "from_name": "polygons",
        "to_name": anchor_picture(campaign),
        "value": {"points": percent, "closed": True, "polygonlabels": ["RTS"]} | value,
    }


def submit(campaign: Campaign, tile: Tile, *result: dict[str, Any]) -> None:
    task = AnnotationTask.objects.create(campaign=campaign, tile=tile, state="open", ls_task_id=tile.pk)
    record_payload(task, {"id": tile.pk, "updated_at": "2021-10-01T00:00:00Z", "result": list(result)})


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_tile_that_was_not_understood_is_in_no_release_and_counts_nowhere(make_campaign: Any, split: str) -> None:
    campaign = make_campaign(val=True)
    for name in ("train", "test"):
        annotate(campaign, tiles(campaign, name)[0], TRIANGLE)
    before = label_stock(campaign, None).tiles
    sound = region(campaign, "sound", [(10, 10), (30, 10), (30, 30)])
    eight = region(campaign, "eight", [(10, 10), (50, 50), (50, 10), (10, 50)])
    classless = region(campaign, "classless", [(10, 10), (30, 10), (30, 30)], polygonlabels=[])
    one, two = tiles(campaign, split)[1:3]
    submit(campaign, one, eight)
    submit(campaign, two, sound, classless)

    release = freeze_release(campaign)

    assert label_stock(campaign, None).tiles == before
    assert {row.tile_id for row in release.release_tiles.all()} == {tiles(campaign, name)[0].pk for name in before}
    assert release.release_labels.count() == 2
