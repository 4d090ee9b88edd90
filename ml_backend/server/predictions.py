"""The predictions that annotators are shown, from the database."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from labeling.labelstudio.payloads import NO_MODEL
from labeling.labelstudio.preannotations import predictions_of, with_newest_predictions
from labeling.labelstudio.push import TASK_ID
from thawloop.campaigns.models import Campaign
from thawloop.registry.models import ModelVersion
from thawloop.registry.selectors import champion_name

Json = dict[str, Any]
MAX_VERSIONS = 100


def model_version(project: int | None) -> str:
    """The name of the predictions that Label Studio shows in a project."""
    campaign = _campaign(project)
    return _shown_version(campaign) if campaign else NO_MODEL


def predict(project: int | None, tasks: Sequence[Any]) -> list[Json]:
    """A prediction for each task, in their order; an empty one for tasks that are not ours or not predicted yet.

    The champion's prediction if there is one, otherwise the task's earlier one.

    Args:
        project: Label Studio's project.
        tasks: Label Studio's tasks; ours have `platform_task_uuid` in their data.
    """
    campaign = _campaign(project)
    if campaign is None:
        return [_empty_prediction() for _ in tasks]
    identifiers = [_identifier(task) for task in tasks]
    wanted = [identifier for identifier in identifiers if identifier is not None]
    known = with_newest_predictions(campaign.tasks.filter(pk__in=wanted), campaign)
    made = predictions_of(campaign, known, _shown_version(campaign))
    ours = {
        task.pk: prediction if task.prediction_id else prediction | {"model_version": NO_MODEL}
        for task, prediction in zip(known, made, strict=True)
    }
    return [
        ours.get(identifier, _empty_prediction()) if identifier else _empty_prediction() for identifier in identifiers
    ]


def known_versions() -> list[str]:
    """Names of the model versions that there are, newest first."""
    return list(ModelVersion.objects.order_by("-id").values_list("name", flat=True)[:MAX_VERSIONS])


def _empty_prediction() -> Json:
    return {"model_version": NO_MODEL, "score": None, "result": []}


def _shown_version(campaign: Campaign) -> str:
    return campaign.ls_shown or champion_name(campaign) or NO_MODEL


def _campaign(project: int | None) -> Campaign | None:
    return Campaign.objects.filter(ls_project_id=project).first() if project is not None else None


def _identifier(task: Any) -> UUID | None:
    data = task.get("data") if isinstance(task, dict) else None
    identifier = data.get(TASK_ID) if isinstance(data, dict) else None
    try:
        return UUID(identifier) if isinstance(identifier, str) else None
    except ValueError:
        return None
