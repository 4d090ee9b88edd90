"""Which model version is the champion, and which was before."""

from thawloop.campaigns.models import Campaign
from thawloop.registry.models import ModelAlias, ModelVersion, Promotion


def champion(campaign: Campaign) -> ModelVersion | None:
    """The model version that predicts a campaign's tiles now."""
    return ModelVersion.objects.filter(aliases__campaign=campaign, aliases__alias=ModelAlias.Alias.CHAMPION).first()


def previous_champion(campaign: Campaign) -> ModelVersion | None:
    """The champion that a rollback would bring back.

    Promotions are read as a stack: each puts its version on top, a rollback takes off what lay above its version. So
    a second rollback goes one further back instead of undoing the first.
    """
    champions: list[int] = []
    for kind, version in campaign.promotions.order_by("id").values_list("kind", "champion"):
        if kind == Promotion.Kind.ROLLBACK and version in champions:
            del champions[len(champions) - champions[::-1].index(version) :]
        else:
            champions.append(version)
    current = champions[-1] if champions else None
    earlier = next((version for version in reversed(champions) if version != current), None)
    return None if earlier is None else ModelVersion.objects.get(pk=earlier)


def champion_name(campaign: Campaign) -> str:
    """Name of the campaign's champion model version; empty if there is none."""
    version = champion(campaign)
    return version.name if version else ""
