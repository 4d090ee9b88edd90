"""Questions about campaigns: their tiles, regions and modalities."""

from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery

from thawloop.campaigns.models import Campaign, CampaignRegion
from thawloop.catalog.models import Modality, Tile
from thawloop.core.bulk import without_bulk
from thawloop.core.errors import Refused


def campaign_named(name: str) -> Campaign:
    """The campaign of that name.

    Raises:
        Refused: there is none; the sentence names those that are there.
    """
    if (campaign := Campaign.objects.filter(name=name).first()) is None:
        known = ", ".join(Campaign.objects.order_by("name").values_list("name", flat=True)[:20])
        raise Refused(f"There is no campaign {name!r}: " + (f"choose one of {known}." if known else "create one."))
    return campaign


def drawn_on(campaign: Campaign) -> Modality | None:
    """The modality that people draw on."""
    row = campaign.campaign_modalities.filter(is_anchor=True).select_related("modality").first()
    return row.modality if row else None


def campaign_tiles(campaign: Campaign) -> QuerySet[Tile]:
    """All tiles of a campaign, each with its `split`."""
    split_of = CampaignRegion.objects.filter(campaign=campaign, region=OuterRef("region")).values("split")[:1]
    tiles = Tile.objects.filter(
        grid=campaign.grid_id, period=campaign.period, region__campaignregion__campaign=campaign
    ).annotate(split=Subquery(split_of))
    return without_bulk(tiles.select_related("grid", "region"))


def regions_of(campaign: Campaign, split: str) -> QuerySet[CampaignRegion, Any]:
    """Ids of the campaign's regions of a split."""
    return CampaignRegion.objects.filter(campaign=campaign, split=split).values("region")
