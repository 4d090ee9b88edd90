"""The registry: model versions, and which of them is a campaign's champion."""

from hashlib import sha1

from django.db import transaction

from contracts.checkpoint import WEIGHTS_FILE, network_version
from contracts.network import NETWORK_VERSION
from thawloop.campaigns.models import Campaign
from thawloop.core.context import current_actor
from thawloop.core.jobs import enqueue
from thawloop.core.models import Job
from thawloop.core.services import audit
from thawloop.core.storage import artifact, sha256
from thawloop.registry.cards import read_card
from thawloop.registry.errors import ModelRefused, PromotionConflict
from thawloop.registry.models import ModelAlias, ModelVersion, Promotion
from thawloop.registry.selectors import champion, previous_champion


def register_model(
    campaign: Campaign,
    path: str,
    *,
    number: int,
    release: int | None = None,
    retraining: int | None = None,
    parent: str = "",
) -> ModelVersion:
    """Enter a checkpoint in the registry and make it the challenger. Done once per number.

    Args:
        campaign: Whose model it is.
        path: Artifact name of the checkpoint folder.
        number: Of the version within the campaign.
        release: Primary key of the release that it was trained on.
        retraining: Primary key of the retraining that trained it.
        parent: Artifact name of the checkpoint that it was warm-started from; empty if none.

    Raises:
        ModelRefused: the card cannot be read, or the weights are not the ones it describes.
    """
    if known := campaign.model_versions.filter(number=number).first():
        return known
    folder = artifact(path)
    card = read_card(folder)
    try:
        checksum = sha256(folder / WEIGHTS_FILE)
    except OSError as error:
        raise ModelRefused(f"The weights of `{path}` cannot be read ({error}): retry the fine-tuning.") from error
    if checksum != card["weights"].get("sha256"):
        raise ModelRefused(f"The weights of `{path}` are not the ones its card describes: retry the fine-tuning.")
    with transaction.atomic():
        version = ModelVersion.objects.create(
            campaign=campaign,
            name=f"{campaign.name}-v{number}",
            number=number,
            parent=campaign.model_versions.filter(path=parent).first() if parent else None,
            release_id=release,
            retraining_id=retraining,
            path=path,
            checksum=checksum,
            card=card,
        )
        _point(ModelAlias.Alias.CHALLENGER, version)
        audit("training.register_model", version, after={"path": path, "checksum": checksum})
    return version


def promote(
    model_version: ModelVersion,
    *,
    kind: str = Promotion.Kind.MANUAL,
    reason: str,
    request_predictions_now: bool = True,
) -> Promotion:
    """Make a model version its campaign's champion, and have it predict the campaign's tiles.

    Args:
        model_version: The new champion.
        kind: Who decided: the gate, or a person.
        reason: Why, for the record.
        request_predictions_now: False where the caller sees to the predictions (a retraining's own step).

    Raises:
        PromotionConflict: it is the champion already.
        ModelRefused: it is of another version of the network, so it could not predict.
    """
    with transaction.atomic():
        campaign = _locked(model_version.campaign)
        if champion(campaign) == model_version:
            raise PromotionConflict(f"{model_version.name} is the champion of `{campaign.name}` already.")
        return _make_champion(campaign, model_version, kind, reason, request_predictions_now)


def rollback(campaign: Campaign, *, reason: str) -> Promotion:
    """Make the champion before the current one champion again, and refresh what annotators see.

    Raises:
        PromotionConflict: there is no earlier champion.
        ModelRefused: as `promote`.
    """
    with transaction.atomic():
        campaign = _locked(campaign)
        earlier = previous_champion(campaign)
        if earlier is None:
            raise PromotionConflict(
                f"Campaign `{campaign.name}` has had no other champion to go back to: promote a model version instead."
            )
        return _make_champion(campaign, earlier, Promotion.Kind.ROLLBACK, reason, True)


def request_predictions(
    campaign: Campaign,
    model_version: ModelVersion | None = None,
    *,
    tiles: list[int] | None = None,
) -> Job:
    """Have the campaign's tiles that a model version has not predicted yet predicted by it.

    Args:
        campaign: Whose tiles.
        model_version: Who predicts; the champion if not given.
        tiles: Only these, by primary key; all if not given.

    Raises:
        ModelRefused: the campaign has no champion, or the model is another campaign's.
    """
    version = model_version or champion(campaign)
    if version is None:
        raise ModelRefused(
            f"Campaign `{campaign.name}` has no champion model yet: start a retraining first, or name a model version."
        )
    if version.campaign_id != campaign.pk:
        raise ModelRefused(f"{version.name} belongs to another campaign than `{campaign.name}`.")
    key = f"predict:{campaign.pk}:{version.pk}"
    args: dict[str, object] = {"campaign": campaign.pk, "model_version": version.pk}
    if tiles is not None:
        args["tiles"] = sorted(tiles)
        key = f"{key}:{sha1(repr(args['tiles']).encode(), usedforsecurity=False).hexdigest()}"
    return enqueue("ml_backend.jobs.predict", key=key, args=args)


def request_refresh(campaign: Campaign) -> Job:
    """Have open tasks shown with the champion's predictions; a job, because Label Studio may be away for a while."""
    return enqueue("labeling.labelstudio.jobs.refresh", key=f"refresh:{campaign.pk}", args={"campaign": campaign.pk})


def _make_champion(
    campaign: Campaign, version: ModelVersion, kind: str, reason: str, request_predictions_now: bool
) -> Promotion:
    if (network := network_version(version.card)) != NETWORK_VERSION:
        raise ModelRefused(
            f"{version.name} was made by another ThawLoop (its network is version {network}, this one's is "
            f"{NETWORK_VERSION}), so it cannot predict here: start a retraining, or use the ThawLoop that made it."
        )
    before = champion(campaign)
    promotion = Promotion.objects.create(
        campaign=campaign,
        kind=kind,
        previous=before,
        champion=version,
        reason=reason,
        actor=current_actor().user,
    )
    _point(ModelAlias.Alias.CHAMPION, version)
    ModelAlias.objects.filter(campaign=campaign, alias=ModelAlias.Alias.CHALLENGER, model_version=version).delete()
    audit(
        "training.rollback" if kind == Promotion.Kind.ROLLBACK else "training.promote",
        version,
        before={"champion": before.name if before else None},
        after={"champion": version.name, "kind": kind},
        reason=reason,
    )
    if request_predictions_now:
        request_predictions(campaign, version)
        request_refresh(campaign)
    return promotion


def _point(alias: str, version: ModelVersion) -> None:
    ModelAlias.objects.update_or_create(campaign=version.campaign, alias=alias, defaults={"model_version": version})


def _locked(campaign: Campaign) -> Campaign:
    """The campaign, whose champion nobody else changes until the transaction ends."""
    return Campaign.objects.select_for_update(of=("self",)).get(pk=campaign.pk)
