"""Predictions as Label Studio takes them: shapes to start from, and a score that puts tasks in acquisition order."""

from typing import Any

from labeling.labelstudio.config import anchor_picture
from labeling.labelstudio.results import write_result
from labeling.labelstudio.shown import shown_instances
from labeling.models import AnnotationTask, Campaign, Prediction
from thawloop.catalog.pictures import picture_size
from thawloop.core.bulk import count_of

# The version of predictions of tasks that no model has spoken about; they are empty, and carry the order.
NO_MODEL = "no-model"
# Label Studio serves low scores first and wants them within 0-1; half of the range is used up after so many tasks.
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
        """A score below 1 that grows with the task's place: batch by batch, by rank."""
        place = self._before.get(task.batch_id or 0, 0) + task.rank
        return place / (place + HALF_WAY)

    def of(self, task: AnnotationTask, prediction: Prediction | None) -> dict[str, Any]:
        """A task's prediction in Label Studio's JSON; an empty one of `no-model` if there is none.

        Args:
            task: With its tile and grid.
            prediction: With its instances and model version.
        """
        shown = shown_instances(prediction, self._campaign.score_threshold) if prediction else []
        return {
            "model_version": prediction.model_version.name if prediction else NO_MODEL,
            "score": self.score(task),
            "result": write_result(
                shown,
                tile_size=task.tile.grid.tile_size,
                picture=self._picture,
                picture_size=picture_size(task.tile),
            ),
        }
