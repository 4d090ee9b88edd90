"""The gate: a challenger becomes champion only by being better on the same held-out tiles."""

import math
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from contracts.checkpoint import network_version
from contracts.network import NETWORK_VERSION
from thawloop.core.jsonable import jsonable
from thawloop.core.services import audit
from thawloop.registry.models import ModelVersion, Promotion
from thawloop.registry.selectors import champion
from thawloop.registry.services import promote
from thawloop.releases.models import Release
from thawloop.training.models import Evaluation, Retraining, RetrainPolicy

GAIN_OVER = "gain_over"  # in an evaluation's metrics: by how much it is above others on the same tiles, and how surely


@dataclass(frozen=True)
class Verdict:
    """What the gate says, and why, in a sentence."""

    passes: bool
    why: str


def record_evaluation(
    model_version: ModelVersion, release: Release, metrics: dict[str, Any], *, split: str = "test"
) -> Evaluation:
    """Keep how a model did on a split of a release; what was kept before stays.

    Args:
        model_version: The model.
        release: The dataset.
        metrics: `ap`, `ap50`, `ap30` and whatever else was measured; `n_instances` 0 means that the split holds
            nothing to be found, so that the precisions mean nothing. `error` says why the model could not be measured.
            `gain_over` has, by name of a model measured before, `difference`, `low` and `high` of AP50 (95 % interval).
        split: `test` or `val`.
    """
    measured = bool(metrics.get("n_instances", 1)) and "error" not in metrics
    values = {name: _finite(metrics.get(name)) if measured else None for name in ("ap", "ap50", "ap30")}
    with transaction.atomic():
        evaluation, created = Evaluation.objects.get_or_create(
            model_version=model_version,
            release=release,
            split=split,
            defaults={**values, "metrics": jsonable(metrics)},
        )
        if created:
            audit("training.record_evaluation", evaluation, after=values)
    return evaluation


def missing_evaluations(retraining: Retraining) -> list[ModelVersion]:
    """Who must still be measured on the retraining's test tiles: the challenger, and the champion of this moment."""
    versions = [retraining.model_version, champion(retraining.campaign)]
    measured = set(
        Evaluation.objects.filter(release=retraining.release, split="test").values_list("model_version", flat=True)
    )
    wanted = {version.pk: version for version in versions if version is not None}
    return [version for pk, version in wanted.items() if pk not in measured]


def decide(retraining: Retraining) -> bool:
    """Ask the gate about a retraining whose challenger and champion have both been measured, and act on its verdict.

    The caller holds the retraining's row. Returns whether the challenger is champion now.
    """
    with transaction.atomic():
        challenger, current = retraining.model_version, champion(retraining.campaign)
        if current == challenger:
            verdict = Verdict(True, f"{challenger.name} was promoted by a person before the gate was asked.")
        else:
            verdict = judge(
                _evaluation(challenger, retraining),
                _evaluation(current, retraining) if current else None,
                min_gain=_min_gain(retraining),
            )
            if verdict.passes:
                promote(challenger, kind=Promotion.Kind.GATE, reason=verdict.why, request_predictions_now=False)
        retraining.promoted, retraining.verdict = verdict.passes, verdict.why
        retraining.save(update_fields=["promoted", "verdict"])
        audit("training.decide", retraining, after={"promoted": verdict.passes}, reason=verdict.why)
    return verdict.passes


def judge(challenger: Evaluation, current: Evaluation | None, *, min_gain: float = 0.0) -> Verdict:
    """Compare a challenger with the champion on the same test tiles.

    Without test instances nothing can be compared and nothing passes; without a champion any measured model does, and
    after one that another version of the network left behind any that finds something.
    """
    name, release = challenger.model_version.name, challenger.release.version
    if why := challenger.metrics.get("error"):
        return Verdict(False, f"{name} could not be measured on the test tiles of release {release}: {why}")
    if challenger.ap50 is None:
        return Verdict(
            False,
            f"{name} was not promoted: the test tiles of release {release} hold no labelled instance, so nothing can "
            "be compared; label some test tiles, or promote it by hand.",
        )
    own = f"{name} reaches AP50 {challenger.ap50:.3f} on the test tiles of release {release}"
    if current is None:
        return Verdict(True, f"{own}; it is the campaign's first champion.")
    rival = current.model_version.name
    if challenger.ap50 and network_version(current.model_version.card) != NETWORK_VERSION:
        return Verdict(True, f"{own}; the champion {rival} was made by another ThawLoop and cannot predict here.")
    if current.ap50 is None:
        return Verdict(
            False,
            f"{own}, but the champion {rival} could not be measured on them "
            f"({current.metrics.get('error', 'no reason recorded')}); compare them yourself and promote by hand.",
        )
    gain = challenger.ap50 - current.ap50
    compared = f"{own}, the champion {rival} {current.ap50:.3f}: a gain of {gain:+.3f}{_how_sure(challenger, current)}"
    if gain > min_gain:
        return Verdict(True, f"{compared}.")
    return Verdict(False, f"{compared}, and more than {min_gain:+.3f} was asked for; {rival} stays.")


def _how_sure(challenger: Evaluation, current: Evaluation) -> str:
    """The interval of the gain over the test tiles, as whoever was measured second has it; empty if nobody does."""
    for own, other, sign in ((challenger, current, 1), (current, challenger, -1)):
        gain = own.metrics.get(GAIN_OVER, {}).get(other.model_version.name, {})
        if gain.get("low") is not None:
            low, high = sorted((sign * gain["low"], sign * gain["high"]))
            return f" (95 % interval over test tiles {low:+.3f} to {high:+.3f})"
    return ""


def _evaluation(version: ModelVersion, retraining: Retraining) -> Evaluation:
    return Evaluation.objects.select_related("model_version", "release").get(
        model_version=version, release=retraining.release, split="test"
    )


def _min_gain(retraining: Retraining) -> float:
    policy = RetrainPolicy.objects.filter(campaign=retraining.campaign).first()
    return policy.gate_min_gain if policy else 0.0


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
