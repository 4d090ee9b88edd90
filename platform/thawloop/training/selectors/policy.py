"""Why a campaign retrains now, or why not."""

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from labeling.selectors import LabelStock, standing_annotations
from thawloop.campaigns.models import Campaign, Split
from thawloop.training.models import Retraining, RetrainPolicy
from thawloop.training.selectors.state import STOPPED, CampaignState

Against = list[tuple[str, str]]  # what stands in the way: for machines, and as a sentence


@dataclass(frozen=True)
class PolicyExplanation:
    """Whether a retraining is due, in words.

    Attributes:
        due: Nothing stands in the way.
        reasons: Sentences for people: what stands in the way, or why it is due.
        new_tiles: Tiles labelled since the last trained release.
        new_labels: Labels changed since then.
        needed_tiles: How many more tiles the policy waits for.
        needed_labels: How many more labels.
        blocking: What each reason is about, for machines: `no_policy`, `disabled`, `campaign`, `running`, `cooldown`,
            `failed`, `cancelled`, `labels`, `splits`; empty when due.
    """

    due: bool
    reasons: list[str]
    new_tiles: int = 0
    new_labels: int = 0
    needed_tiles: int = 0
    needed_labels: int = 0
    blocking: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def explain_policy(state: CampaignState) -> PolicyExplanation:
    """Say whether a campaign's retraining is due, and why (not)."""
    policy, trained, stock = state.policy, state.trained, state.stock
    since = f"since release {trained.release.version}" if trained and trained.release else "so far"
    minimum_tiles, minimum_labels = (policy.min_new_tiles, policy.min_new_labels) if policy else (1, 0)
    minimum_tiles = minimum_tiles if minimum_tiles or minimum_labels else 1  # never on nothing new at all
    needed_tiles, needed_labels = max(0, minimum_tiles - stock.new_tiles), max(0, minimum_labels - stock.new_labels)
    against = [*_at_once(state), *_missing_splits(stock)]
    tiles, labels = stock.new_tiles, stock.new_labels
    if needed_tiles:
        against.append(("labels", f"{tiles} of {minimum_tiles} new tiles {since}; {needed_tiles} to go."))
    if needed_labels:
        against.append(("labels", f"{labels} of {minimum_labels} changed labels {since}; {needed_labels} to go."))
    due = not against
    reasons = [sentence for _, sentence in against] or [f"{tiles} tiles and {labels} labels are new {since}."]
    return PolicyExplanation(due, reasons, tiles, labels, needed_tiles, needed_labels, [why for why, _ in against])


def may_be_due(state: CampaignState) -> bool:
    """Whether nothing stands in the way that can be seen without counting tiles and labels."""
    return not _at_once(state)


def _at_once(state: CampaignState) -> Against:
    return [
        *_switched_off(state.campaign, state.policy),
        *_running(state.active),
        *_cooling_down(state.policy, state.last),
        *_stopped(state.campaign, state.last),
    ]


def _switched_off(campaign: Campaign, policy: RetrainPolicy | None) -> Against:
    against = []
    if policy is None:
        against.append(("no_policy", "The campaign has no retrain policy; it retrains only when asked to."))
    elif not policy.enabled:
        against.append(("disabled", "The retrain policy is switched off; the campaign retrains only when asked to."))
    if campaign.state != Campaign.State.ACTIVE:
        against.append(("campaign", f"The campaign is {campaign.state}."))
    return against


def _running(active: Retraining | None) -> Against:
    return [("running", f"Retraining {active.number} is running ({active.state}).")] if active else []


def _cooling_down(policy: RetrainPolicy | None, last: Retraining | None) -> Against:
    if policy is None or last is None or not policy.cooldown_minutes:
        return []
    until: datetime = last.created + timedelta(minutes=policy.cooldown_minutes)
    if until <= timezone.now():
        return []
    return [
        (
            "cooldown",
            f"The policy leaves {policy.cooldown_minutes} minutes between retrainings: not before "
            f"{until:%Y-%m-%d %H:%M} UTC.",
        )
    ]


def _stopped(campaign: Campaign, last: Retraining | None) -> Against:
    """What failed would fail again at once, for ever, and what a person cancelled would be back in seconds."""
    if last is None or last.state not in STOPPED or last.promoted is not None:
        return []
    newer = Q(created__gt=last.finished or last.created)
    if standing_annotations(campaign).filter(newer).exists() or campaign.imports.filter(newer).exists():
        return []
    then = "retry it or start one by hand; by itself the next one begins when more is labelled."
    if last.state == Retraining.State.CANCELLED:
        return [("cancelled", f"Retraining {last.number} was cancelled: {then}")]
    return [("failed", f"Retraining {last.number} failed ({last.error}) Mend that, then {then}")]


def _missing_splits(stock: LabelStock) -> Against:
    against = []
    if Split.TRAIN not in stock.tiles:
        against.append(("splits", "No training tile is labelled yet."))
    elif Split.TRAIN not in stock.teaching:
        against.append(("splits", "The labelled training tiles hold no label yet: a model needs at least one."))
    if Split.TEST not in stock.tiles:
        against.append(("splits", "No test tile is labelled: a new model could not be compared with the champion."))
    return against
