"""Predictions as Label Studio takes them: shapes to start from, and a score that grows with a task's place."""

from typing import Any

from labeling.labelstudio.config import anchor_picture
from labeling.labelstudio.regions import write_result
from labeling.labelstudio.shown import shown_instances
from labeling.models import AnnotationTask, Prediction
from thawloop.campaigns.models import Campaign
from thawloop.catalog.pictures import picture_size
from thawloop.core.bulk import count_of

# What predictions are called while there is no model; they are empty.
NO_MODEL = "no-model"
# Label Studio wants scores within 0-1; half of the range is used up after so many tasks.
HALF_WAY = 1000


class Preannotations:
    """Makes the pre-annotations of a campaign's tasks. Good for one push or request: it remembers the batches.

    Args:
        campaign: The campaign, whose threshold and pictures count.
    """

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._picture = anchor_picture(campaign)
        batches = campaign.batches.order_by("number").annotate(size=count_of(AnnotationTask, "batch"))
        self._before: dict[int, int] = {}
        total = 0
        for batch, size in batches.values_list("pk", "size"):
            self._before[batch] = total
            total += size

    def score(self, task: AnnotationTask) -> float:
        """A score below 1 that grows with the task's place: batch by batch, by rank.

        Tasks are served by their ids, which are in that order, too; whoever sorts or samples by score finds the same.
        """
        place = self._before.get(task.batch_id or 0, 0) + task.rank
        return place / (place + HALF_WAY)

    def of(self, task: AnnotationTask, prediction: Prediction | None, name: str = "") -> dict[str, Any]:
        """A task's prediction in Label Studio's JSON; an empty one if there is none.

        Args:
            task: With its tile and grid.
            prediction: With its instances, and its model version if no name is given.
            name: Its model version there; that of its model if not given.
        """
        shown = shown_instances(prediction, self._campaign.score_threshold) if prediction else []
        return {
            "model_version": name or (prediction.model_version.name if prediction else NO_MODEL),
            "score": self.score(task),
            "result": write_result(
                shown,
                tile_size=task.tile.grid.tile_size,
                picture=self._picture,
                picture_size=picture_size(task.tile),
            ),
        }
