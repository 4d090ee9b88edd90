"""What the champion said about tasks, from the database."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from labeling.labelstudio.preannotations import NO_MODEL, Preannotations
from labeling.models import Campaign, Prediction
from labeling.selectors import champion_name
from labeling.services.tasks import TASK_ID
from thawloop.training.models import ModelVersion

Json = dict[str, Any]
MAX_VERSIONS = 100


def model_version(project: int | None) -> str:
    """The version whose predictions a project gets: its champion's name, or `no-model`."""
    campaign = _campaign(project)
    return (champion_name(campaign) if campaign else "") or NO_MODEL


def predict(project: int | None, tasks: Sequence[Any]) -> list[Json]:
    """A prediction for each task, in their order; an empty one for tasks that are not ours or not predicted yet.

    Args:
        project: Label Studio's project.
        tasks: Label Studio's tasks; ours are known by their data's `platform_task_uuid`.
    """
    campaign = _campaign(project)
    if campaign is None:
        return [_nothing() for _ in tasks]
    identifiers = [_identifier(task) for task in tasks]
    wanted = [identifier for identifier in identifiers if identifier is not None]
    ours = {task.pk: task for task in campaign.tasks.filter(pk__in=wanted).select_related("tile__grid")}
    tiles = [task.tile_id for task in ours.values()]
    predictions = Prediction.objects.filter(tile__in=tiles, model_version__name=champion_name(campaign))
    by_tile = {
        row.tile_id: row
        for row in predictions.select_related("model_version").prefetch_related("instances__landform_class")
    }
    preannotations = Preannotations(campaign)
    found = [ours.get(identifier) if identifier else None for identifier in identifiers]
    return [preannotations.of(task, by_tile.get(task.tile_id)) if task else _nothing() for task in found]


def known_versions() -> list[str]:
    """Names of the model versions that there are, newest first."""
    return list(ModelVersion.objects.order_by("-id").values_list("name", flat=True)[:MAX_VERSIONS])


def _nothing() -> Json:
    return {"model_version": NO_MODEL, "score": None, "result": []}


def _campaign(project: int | None) -> Campaign | None:
    return Campaign.objects.filter(ls_project_id=project).first() if project is not None else None


def _identifier(task: Any) -> UUID | None:
    data = task.get("data") if isinstance(task, dict) else None
    identifier = data.get(TASK_ID) if isinstance(data, dict) else None
    try:
        return UUID(identifier) if isinstance(identifier, str) else None
    except ValueError:
        return None
