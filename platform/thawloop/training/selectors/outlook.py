"""What a retraining would do if it began now: the dry run."""

from dataclasses import asdict, dataclass
from typing import Any

from contracts.dataset import SPLITS
from labeling.selectors import current_labels
from thawloop.campaigns.models import Campaign
from thawloop.campaigns.settings import DetectorSettings
from thawloop.core.errors import Refused
from thawloop.registry.selectors import champion
from thawloop.training.architecture import Architecture
from thawloop.training.selectors.plan import TrainingPlan, plan_training
from thawloop.training.selectors.policy import LabelStock, explain_policy, label_stock
from thawloop.training.selectors.succession import active_retraining


@dataclass(frozen=True)
class Outlook:
    """What would happen.

    Attributes:
        can_start: Whether `retrain` would be accepted now; `obstacle` says why not.
        obstacle: A sentence, or empty.
        due: Whether the policy would start it by itself.
        reasons: The policy's explanation.
        tiles: Labelled tiles per split, before those overlapping test tiles are left out.
        labels: Labels of record.
        stages: What would be done, one sentence each.
    """

    can_start: bool
    obstacle: str
    due: bool
    reasons: list[str]
    tiles: dict[str, int]
    labels: int
    stages: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def outlook(campaign: Campaign) -> Outlook:
    """Look ahead without changing anything."""
    stock = label_stock(campaign)
    explanation = explain_policy(campaign)
    try:
        stages = _stages(campaign, plan_training(campaign, Architecture.wanted(campaign)))
        obstacle = _obstacle(campaign, stock)
    except Refused as refusal:
        stages, obstacle = [], str(refusal)
    return Outlook(
        can_start=not obstacle,
        obstacle=obstacle,
        due=explanation.due,
        reasons=explanation.reasons,
        tiles={split: stock.tiles.get(split, 0) for split in SPLITS},
        labels=current_labels(campaign).count(),
        stages=stages,
    )


def _obstacle(campaign: Campaign, stock: LabelStock) -> str:
    if campaign.state == Campaign.State.CLOSED:
        return f"Campaign `{campaign.name}` is closed."
    if active := active_retraining(campaign):
        return f"Retraining {active.number} is running ({active.state})."
    for split in ("train", "test"):
        if not stock.tiles.get(split):
            return f"No tile of the {split} regions is labelled."
    if not stock.teaches:
        return "The labelled training tiles hold no label yet: a model needs at least one."
    return ""


def _stages(campaign: Campaign, plan: TrainingPlan) -> list[str]:
    settings = DetectorSettings.from_json(campaign.detector)
    current = champion(campaign)
    stages = ["Freeze the labels into a release and write its dataset directory."]
    for stage in plan.stages:
        iterations = settings.iterations_of(stage)
        if stage.pretrains:
            stages.append(f"Pretrain {stage.pretrains} alone for {iterations} iterations.")
        else:
            names = " + ".join(stage.modalities)
            stages.append(f"Train {settings.size} on {names} for {iterations} iterations, {plan.start_in_words}.")
    rival = f" and the champion {current.name}" if current else ""
    stages.append(f"Measure it{rival} on the release's test tiles.")
    stages.append("Promote it if it is better; then predict the campaign's tiles and refresh the open tasks.")
    return stages
