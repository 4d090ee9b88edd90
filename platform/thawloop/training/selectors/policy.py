"""Why a campaign retrains now, or why not."""

import hashlib
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db import connection
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from labeling.selectors import changed_labels, count_labelled, current_labels, labelled_tiles, standing_annotations
from thawloop.campaigns.models import Campaign, Split
from thawloop.training.models import Retraining, RetrainPolicy
from thawloop.training.selectors.succession import active_retraining

STOPPED = (Retraining.State.FAILED, Retraining.State.CANCELLED)
_KEPT_SECONDS = 30
# Small tables by the place and the writer of every row: they may be updated.
_STATE_OF_LABELS = """
    SELECT (SELECT max(id) FROM labeling_annotation), (SELECT max(id) FROM labeling_labelrevision),
           (SELECT max(id) FROM catalog_tile),
           (SELECT array_agg((ctid, xmin::text)::text ORDER BY id) FROM labeling_labelimport WHERE campaign_id = %s),
           (SELECT array_agg((ctid, xmin::text)::text ORDER BY id) FROM campaigns_campaignregion WHERE campaign_id = %s)
"""


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


@dataclass(frozen=True)
class LabelStock:
    """What a campaign has to learn from, and what of it is new since the last release that was trained on.

    Attributes:
        tiles: Labelled tiles of each split that has any.
        new_tiles: Train and val tiles labelled since.
        new_labels: Labels changed since.
        teaches: Whether any label lies on a labelled training tile.
    """

    tiles: dict[str, int]
    new_tiles: int
    new_labels: int
    teaches: bool


def explain_policy(campaign: Campaign) -> PolicyExplanation:
    """Say whether a campaign's retraining is due, and why (not)."""
    policy = RetrainPolicy.objects.filter(campaign=campaign).first()
    trained = _last_trained(campaign)
    stock = label_stock(campaign, trained)
    since = f"since release {trained.release.version}" if trained and trained.release else "so far"
    minimum_tiles, minimum_labels = (policy.min_new_tiles, policy.min_new_labels) if policy else (1, 0)
    minimum_tiles = minimum_tiles if minimum_tiles or minimum_labels else 1  # never on nothing new at all
    needed_tiles, needed_labels = max(0, minimum_tiles - stock.new_tiles), max(0, minimum_labels - stock.new_labels)
    against = [*_at_once(campaign, policy), *_missing_splits(stock)]
    tiles, labels = stock.new_tiles, stock.new_labels
    if needed_tiles:
        against.append(("labels", f"{tiles} of {minimum_tiles} new tiles {since}; {needed_tiles} to go."))
    if needed_labels:
        against.append(("labels", f"{labels} of {minimum_labels} changed labels {since}; {needed_labels} to go."))
    due = not against
    reasons = [sentence for _, sentence in against] or [f"{tiles} tiles and {labels} labels are new {since}."]
    return PolicyExplanation(due, reasons, tiles, labels, needed_tiles, needed_labels, [why for why, _ in against])


def may_be_due(campaign: Campaign) -> bool:
    """Whether nothing stands in the way that can be seen without counting tiles and labels."""
    return not _at_once(campaign, RetrainPolicy.objects.filter(campaign=campaign).first())


def label_stock(campaign: Campaign, trained: Retraining | None = None) -> LabelStock:
    """Count a campaign's labelled tiles and new labels.

    Pages and the reconciler ask this every few seconds, of campaigns in which nothing has changed for hours: the answer
    is kept as long as nothing was written that could change it, and half a minute at most, for a transaction with a
    lower number may be committed later.

    Args:
        campaign: The campaign.
        trained: Its last retraining with a release, if known.
    """
    trained = trained or _last_trained(campaign)
    release = trained.release if trained else None
    key = f"label-stock:{campaign.pk}:{release.pk if release else ''}:{_state_of_labels(campaign)}"
    kept: LabelStock | None = cache.get(key)
    if kept is None:
        tiles, new_tiles = count_labelled(campaign, release)
        teaches = Split.TRAIN in tiles and holds_labels(campaign, Split.TRAIN)
        kept = LabelStock(tiles, new_tiles, changed_labels(campaign, release), teaches)
        cache.set(key, kept, _KEPT_SECONDS)
    return kept


def _state_of_labels(campaign: Campaign) -> str:
    """Differs whenever labels, coverage or tiles may. Annotations and revisions are only ever added."""
    with connection.cursor() as cursor:
        cursor.execute(_STATE_OF_LABELS, [campaign.pk, campaign.pk])
        return hashlib.sha256(repr(cursor.fetchone()).encode()).hexdigest()


def holds_labels(campaign: Campaign, split: str) -> bool:
    """Whether any label of record lies on a labelled tile of a split."""
    tiles = labelled_tiles(campaign).filter(split=split)  # type: ignore[misc]  # `split` is annotated
    return current_labels(campaign).filter(Exists(tiles.filter(geometry__intersects=OuterRef("geometry")))).exists()


def _at_once(campaign: Campaign, policy: RetrainPolicy | None) -> list[tuple[str, str]]:
    last = campaign.retrainings.order_by("-number").first()
    return [
        *_switched_off(campaign, policy),
        *_running(campaign),
        *_cooling_down(policy, last),
        *_stopped(campaign, last),
    ]


def _switched_off(campaign: Campaign, policy: RetrainPolicy | None) -> list[tuple[str, str]]:
    against = []
    if policy is None:
        against.append(("no_policy", "The campaign has no retrain policy; it retrains only when asked to."))
    elif not policy.enabled:
        against.append(("disabled", "The retrain policy is switched off; the campaign retrains only when asked to."))
    if campaign.state != Campaign.State.ACTIVE:
        against.append(("campaign", f"The campaign is {campaign.state}."))
    return against


def _running(campaign: Campaign) -> list[tuple[str, str]]:
    active = active_retraining(campaign)
    return [("running", f"Retraining {active.number} is running ({active.state}).")] if active else []


def _cooling_down(policy: RetrainPolicy | None, last: Retraining | None) -> list[tuple[str, str]]:
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


def _last_trained(campaign: Campaign) -> Retraining | None:
    """The last retraining that used up what was new: one that was stopped before its model was judged did not."""
    stopped = Q(state__in=STOPPED, promoted__isnull=True)
    done = campaign.retrainings.filter(release__isnull=False).exclude(stopped)
    return done.select_related("release").order_by("-number").first()


def _stopped(campaign: Campaign, last: Retraining | None) -> list[tuple[str, str]]:
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


def _missing_splits(stock: LabelStock) -> list[tuple[str, str]]:
    against = []
    if Split.TRAIN not in stock.tiles:
        against.append(("splits", "No training tile is labelled yet."))
    elif not stock.teaches:
        against.append(("splits", "The labelled training tiles hold no label yet: a model needs at least one."))
    if Split.TEST not in stock.tiles:
        against.append(("splits", "No test tile is labelled: a new model could not be compared with the champion."))
    return against
