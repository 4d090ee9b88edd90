"""What each retraining brought."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Avg, Q

from labeling.models import Annotation
from thawloop.campaigns.models import Campaign
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
    corrections = _corrections(campaign, retrainings)
    points = []
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
                correction_iou=corrections[f"r{retraining.number}"],
                promoted=retraining.promoted,
                model_version=retraining.model_version.name,
            )
        )
    return points


def _to_learn_from(counts: dict[str, Any]) -> int:
    return sum(int(count) for split, count in counts.items() if split != "test")


def _corrections(campaign: Campaign, retrainings: Sequence[Retraining]) -> dict[str, float | None]:
    """For each retraining, the mean agreement of the annotations made since the one before, in one query."""
    if not retrainings:
        return {}
    made = Annotation.objects.filter(task__campaign=campaign, correction_iou__isnull=False)
    means: dict[str, Avg] = {}
    since = Q()
    for retraining in retrainings:
        means[f"r{retraining.number}"] = Avg("correction_iou", filter=since & Q(created__lte=retraining.created))
        since = Q(created__gt=retraining.created)
    return made.aggregate(**means)
