"""What a retraining would do if it began now: the dry run."""

from dataclasses import asdict, dataclass
from typing import Any

from contracts.dataset import SPLITS
from thawloop.campaigns.models import Campaign, Split
from thawloop.core.errors import Refused
from thawloop.training.selectors.plan import plan_training
from thawloop.training.selectors.policy import explain_policy
from thawloop.training.selectors.state import CampaignState


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


def outlook(state: CampaignState) -> Outlook:
    """Look ahead without changing anything."""
    explanation = explain_policy(state)
    why_not = obstacle(state)
    return Outlook(
        can_start=not why_not,
        obstacle=why_not,
        due=explanation.due,
        reasons=explanation.reasons,
        tiles={split: state.stock.tiles.get(split, 0) for split in SPLITS},
        labels=state.stock.labels,
        stages=_stages(state),
    )


def obstacle(state: CampaignState) -> str:
    """Why a retraining would be refused now, in a sentence; empty if it would not."""
    try:
        _ = state.architecture
    except Refused as refusal:
        return str(refusal)
    if state.campaign.state == Campaign.State.CLOSED:
        return f"Campaign `{state.campaign.name}` is closed."
    if active := state.active:
        return f"Retraining {active.number} is running ({active.state})."
    for split in (Split.TRAIN, Split.TEST):
        if not state.stock.tiles.get(split):
            return f"No tile of the {split} regions is labelled."
    if Split.TRAIN not in state.stock.teaching:
        return "The labelled training tiles hold no label yet: a model needs at least one."
    return ""


def _stages(state: CampaignState) -> list[str]:
    """What would be done, one sentence each; nothing where the settings make no sense."""
    try:
        plan = plan_training(state, state.architecture)
    except Refused:
        return []  # `obstacle` says why
    stages = ["Freeze the labels into a release and write its dataset directory."]
    for stage in plan.stages:
        iterations = state.settings.iterations_of(stage)
        if stage.pretrains:
            stages.append(f"Pretrain {stage.pretrains} alone for {iterations} iterations.")
        else:
            names = " + ".join(stage.modalities)
            stages.append(f"Train {state.settings.size} on {names} for {iterations} iterations, {plan.start_in_words}.")
    rival = f" and the champion {state.champion.name}" if state.champion else ""
    stages.append(f"Measure it{rival} on the release's test tiles.")
    stages.append("Promote it if it is better; then predict the campaign's tiles and refresh the open tasks.")
    return stages
