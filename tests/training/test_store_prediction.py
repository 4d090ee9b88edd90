"""What a model said about a tile is kept once, with valid outlines in the right place."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labeling.models import PredictedInstance, Prediction
from labeling.services import TilePrediction, store_prediction, store_predictions
from labeling.services.predictions import PredictionError, embedding_of
from tests.releases.site import PIXEL, tiles
from tests.training.world import make_model
from thawloop.catalog.geometry import geodesic_area, to_pixels, to_shapely

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("neighbour")]

SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30], [10, 10]]
HOLE = [[15, 15], [20, 15], [20, 20], [15, 20], [15, 15]]
BOW_TIE = [[10, 10], [30, 30], [30, 10], [10, 22], [10, 10]]
LINE = [[10, 10], [30, 30], [10, 10]]


@dataclass(frozen=True)
class Found:
    rings: Any
    class_name: str = "RTS"
    score: float = 0.8
    stage_scores: Any = (0.7, 0.8, 0.9)
    stage_boxes: Any = field(default_factory=lambda: np.tile([10.0, 10, 30, 30], (3, 1)))
    mask_entropy: float = 0.1
    class_entropy: float = 0.2


def store(campaign: "Campaign", *found: Found, version: Any = None) -> Prediction:
    return store_prediction(
        tiles(campaign, "train")[0],
        (version or make_model(campaign, 1)).pk,
        found,
        embedding=[0.25, -1.5, 3.0],
        uncertainty=0.5,
        parts={"mask_entropy": 0.1},
        seconds=0.2,
    )


def test_polygon_with_a_hole_lands_where_the_pixels_are(campaign: "Campaign") -> None:
    prediction = store(campaign, Found([SQUARE, HOLE]))
    (instance,) = prediction.instances.all()
    assert instance.rings == [[[float(x), float(y)] for x, y in ring] for ring in (SQUARE, HOLE)]
    back = to_pixels(prediction.tile, instance.geometry)
    assert back.symmetric_difference(shapely.Polygon(SQUARE, [HOLE])).area < 1e-4
    true_pixel = PIXEL**2 / 0.97**2  # EPSG:3413 is not equal-area; at this latitude it shrinks by a few percent
    assert geodesic_area(instance.geometry) == pytest.approx(375 * true_pixel, rel=0.1)
    assert embedding_of(prediction.embedding).tolist() == [0.25, -1.5, 3.0]
    assert (instance.score, instance.stage_scores, instance.landform_class.name) == (0.8, [0.7, 0.8, 0.9], "RTS")


def test_version_says_one_thing_per_tile(campaign: "Campaign") -> None:
    version = make_model(campaign, 1)
    first = store(campaign, Found([SQUARE]), version=version)
    again = store(campaign, Found([SQUARE]), Found([HOLE]), version=version)
    assert again == first
    assert PredictedInstance.objects.count() == 1


def test_outline_that_crosses_itself_is_repaired_and_rings_and_geometry_agree(campaign: "Campaign") -> None:
    (instance,) = store(campaign, Found([BOW_TIE])).instances.all()
    assert instance.geometry.valid
    drawn = shapely.Polygon(instance.rings[0], instance.rings[1:])
    assert drawn.is_valid
    assert to_pixels(instance.prediction.tile, instance.geometry).symmetric_difference(drawn).area < 1e-4


def test_outline_without_area_is_dropped_and_the_others_stay(campaign: "Campaign") -> None:
    prediction = store(campaign, Found([LINE]), Found([]), Found([SQUARE], score=0.3))
    assert [instance.score for instance in prediction.instances.all()] == [0.3]


def test_a_triangle_is_an_outline_and_a_hole_without_an_exterior_is_none(campaign: "Campaign") -> None:
    triangle, stroke = [[10, 10], [30, 10], [10, 30]], [[0, 0], [9, 9]]
    prediction = store(campaign, Found([triangle, stroke]), Found([stroke, HOLE]))
    assert [instance.rings for instance in prediction.instances.all()] == [[[*triangle, triangle[0]]]]


def test_instances_are_numbered_best_first_with_ids_that_no_other_prediction_has(campaign: "Campaign") -> None:
    one = store(campaign, Found([SQUARE], score=0.2), Found([HOLE], score=0.9))
    two = store(campaign, Found([SQUARE]), version=make_model(campaign, 2))
    ids = list(PredictedInstance.objects.values_list("region_id", flat=True))
    assert len(set(ids)) == 3
    assert all(len(region_id) <= 20 for region_id in ids)
    assert one.instances.get(region_id__endswith="-0").score == 0.9
    assert two.instances.count() == 1


def test_unknown_class_is_refused_and_nothing_is_kept(campaign: "Campaign") -> None:
    with pytest.raises(PredictionError, match="class `volcano`"):
        store(campaign, Found([SQUARE], class_name="volcano"))
    assert not Prediction.objects.exists()


def test_model_that_is_no_cascade_of_three_is_refused(campaign: "Campaign") -> None:
    with pytest.raises(PredictionError, match="cascade of 3 stages"):
        store(campaign, Found([SQUARE], stage_scores=(0.1, 0.2)))
    assert not Prediction.objects.exists()


corner = st.tuples(st.floats(0, 64), st.floats(0, 64)).map(list)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(corner, min_size=3, max_size=12))
def test_whatever_the_ring_only_valid_polygons_are_kept(campaign: "Campaign", ring: list[list[float]]) -> None:
    Prediction.objects.all().delete()
    version = campaign.model_versions.first() or make_model(campaign, 1)
    for instance in store(campaign, Found([ring]), version=version).instances.all():
        assert instance.geometry.valid
        assert to_shapely(instance.geometry).area > 0


def test_tiles_are_stored_together_in_as_many_queries_as_one(
    campaign: "Campaign", django_assert_max_num_queries: Any
) -> None:
    version = make_model(campaign, 1)
    some = tiles(campaign, "train")[:6]
    said = [TilePrediction(tile, [Found([SQUARE]), Found([HOLE])], [1.0], 0.5, {}) for tile in some]
    kept = store_predictions(version.pk, said[2:3])
    with django_assert_max_num_queries(7):
        stored = store_predictions(version.pk, said)
    assert [prediction.tile for prediction in stored] == some
    assert stored[2] == kept[0]
    assert PredictedInstance.objects.count() == 12
    assert set(PredictedInstance.objects.values_list("prediction", flat=True)) == {one.pk for one in stored}


@pytest.mark.django_db(transaction=True)
def test_two_attempts_at_the_same_tiles_keep_one_prediction_of_each(campaign: "Campaign") -> None:
    """One that lost its lease may still be storing when the next does."""
    version, some = make_model(campaign, 1), tiles(campaign, "train")[:4]
    said = [TilePrediction(tile, [Found([SQUARE])], [1.0], 0.5, {}) for tile in some]
    second: list[Any] = []

    def store_too() -> None:
        try:
            second.append(store_predictions(version.pk, said[::-1]))
        except Exception as error:
            second.append(error)
        finally:
            connection.close()

    other = threading.Thread(target=store_too)
    with transaction.atomic():
        first = store_predictions(version.pk, said)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive(), "it must wait for the first to end"
    other.join()
    assert second == [first[::-1]]
    assert PredictedInstance.objects.count() == 4
