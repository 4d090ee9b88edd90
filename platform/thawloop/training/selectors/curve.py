"""What each retraining brought."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Avg

from labeling.models import Annotation, Campaign
from thawloop.training.models import Evaluation, Retraining


@dataclass(frozen=True)
class LearningPoint:
    """One retraining on the learning curve.

    Attributes:
        number: The retraining's.
        labels: Labels in the train and val tiles of its release.
        tiles: Train and val tiles of its release.
        ap: Its model's mask AP@[.5:.95] on the release's test tiles; None where it was not or could not be measured.
        ap50: The same at IoU .5.
        ap30: At IoU .3.
        correction_iou: Mean agreement of the annotations made since the retraining before it with what annotators had
            been shown (1: nothing had to be corrected); None without such annotations.
        promoted: The gate's verdict.
        model_version: Name of its model.
    """

    number: int
    labels: int
    tiles: int
    ap: float | None
    ap50: float | None
    ap30: float | None
    correction_iou: float | None
    promoted: bool | None
    model_version: str


def learning_curve(campaign: Campaign) -> list[LearningPoint]:
    """One point for each retraining that made a model, in order."""
    retrainings = list(
        campaign.retrainings.filter(model_version__isnull=False)
        .select_related("release", "model_version")
        .order_by("number")
    )
    measured: dict[tuple[int, int | None], Evaluation] = {
        (row.model_version_id, row.release_id): row
        for row in Evaluation.objects.filter(model_version__campaign=campaign, split="test")
    }
    points = []
    before: Retraining | None = None
    for retraining in retrainings:
        row = measured.get((retraining.model_version.pk, retraining.release_id))
        counts = retraining.release.counts if retraining.release else {}
        points.append(
            LearningPoint(
                number=retraining.number,
                labels=_to_learn_from(counts.get("labels", {})),
                tiles=_to_learn_from(counts.get("tiles", {})),
                ap=row.ap if row else None,
                ap50=row.ap50 if row else None,
                ap30=row.ap30 if row else None,
                correction_iou=_correction(campaign, before, retraining),
                promoted=retraining.promoted,
                model_version=retraining.model_version.name,
            )
        )
        before = retraining
    return points


def _to_learn_from(counts: dict[str, Any]) -> int:
    return sum(int(count) for split, count in counts.items() if split != "test")


def _correction(campaign: Campaign, before: Retraining | None, retraining: Retraining) -> float | None:
    made = Annotation.objects.filter(
        task__campaign=campaign, correction_iou__isnull=False, created__lte=retraining.created
    )
    if before is not None:
        made = made.filter(created__gt=before.created)
    mean: float | None = made.aggregate(mean=Avg("correction_iou"))["mean"]
    return mean
