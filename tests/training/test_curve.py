"""The learning curve: what each retraining brought, and how far annotators agreed with what they were shown."""

from typing import TYPE_CHECKING

import pytest

from labeling.models import Annotation, AnnotationTask
from tests.releases.site import annotate, tiles
from tests.training.world import made_by
from thawloop.training.models import Retraining
from thawloop.training.selectors import learning_curve
from thawloop.training.services import record_evaluation

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("neighbour")]


def agree(campaign: "Campaign", *shares: float) -> None:
    """Annotations on tiles that had none, each agreeing so far with what was shown."""
    for share in shares:
        tile = tiles(campaign, "train")[campaign.tasks.count()]
        task = AnnotationTask.objects.create(campaign=campaign, tile=tile, state="submitted")
        Annotation.objects.create(
            task=task, ls_annotation_id=1, ls_updated_at=task.created, kind="submitted", correction_iou=share
        )


def retrain(campaign: "Campaign", number: int, ap50: float | None) -> Retraining:
    retraining = Retraining.objects.create(campaign=campaign, number=number, reason="x", state="done", promoted=True)
    made_by(retraining, ap50)
    return retraining


def test_agreement_is_of_the_annotations_since_the_retraining_before(labelled: "Campaign") -> None:
    agree(labelled, 0.2, 0.4)
    retrain(labelled, 1, 0.5)
    agree(labelled, 0.8)
    retrain(labelled, 2, 0.5)
    retrain(labelled, 3, 0.5)
    agree(labelled, 0.9)
    assert [point.correction_iou for point in learning_curve(labelled)] == [pytest.approx(0.3), 0.8, None]


def test_a_point_is_the_models_precision_on_the_test_tiles_of_its_own_release(labelled: "Campaign") -> None:
    first = retrain(labelled, 1, 0.5)
    annotate(labelled, tiles(labelled, "train")[0])
    second = retrain(labelled, 2, None)
    assert first.release != second.release
    record_evaluation(first.model_version, second.release, {"ap": 0.1, "ap50": 0.1, "ap30": 0.1})
    record_evaluation(first.model_version, first.release, {"ap": 0.9, "ap50": 0.9, "ap30": 0.9}, split="val")
    record_evaluation(second.model_version, second.release, {"ap": 0.9, "ap50": 0.9, "ap30": 0.9}, split="val")
    assert [(point.number, point.ap50) for point in learning_curve(labelled)] == [(1, 0.5), (2, None)]
