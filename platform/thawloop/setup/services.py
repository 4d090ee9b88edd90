"""Setting a campaign up from its file: catalog and labels below, and the retrain policy on top."""

from dataclasses import dataclass, field

from django.db import transaction

from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Scene, Tile
from thawloop.catalog.selectors import measured_inputs
from thawloop.releases.services import import_labels
from thawloop.setup.creating import create_campaign
from thawloop.setup.spec import CampaignSpec
from thawloop.training.services.policies import set_policy


@dataclass(frozen=True)
class CampaignReport:
    """What is there after a campaign was set up.

    Attributes:
        campaign: The campaign.
        created: Whether it is new.
        scenes: Scenes of its modalities and of what these are derived from.
        tiles: Tiles by split.
        truth: Labels taken in as truth, by file name.
    """

    campaign: Campaign
    created: bool
    scenes: int
    tiles: dict[str, int]
    truth: dict[str, int] = field(default_factory=dict)


def set_up_campaign(spec: CampaignSpec) -> CampaignReport:
    """Create the campaign that a file describes, import its truth, and give it its retrain policy.

    All in one transaction; again with the same file, it changes nothing.

    Raises:
        Refused: Something in the file cannot be done; nothing was changed.
    """
    with transaction.atomic():
        known = Campaign.objects.filter(name=spec.name).exists()
        campaign = create_campaign(spec)
        set_policy(campaign, **spec.policy.model_dump())
        truth = {}
        for labels in spec.labels:
            if labels.role != "truth":
                continue
            for file in labels.files:
                found = import_labels(
                    campaign,
                    file,
                    landform_class=labels.landform_class or None,
                    class_field=labels.class_field or None,
                    coverage="regions",
                    splits=labels.splits,
                    layer=labels.layer or None,
                    crs=labels.crs or None,
                    max_area=labels.max_area,
                )
                truth[found.file_name] = found.revisions.count()
        return CampaignReport(campaign, not known, _scenes(campaign), _tiles(campaign), truth)


def _scenes(campaign: Campaign) -> int:
    sources = {source.pk for modality in campaign.modalities.all() for source in measured_inputs(modality)}
    return Scene.objects.filter(modality__in=sources).count()


def _tiles(campaign: Campaign) -> dict[str, int]:
    """The campaign's tiles by split."""
    tiles = Tile.objects.filter(grid=campaign.grid, period=campaign.period)
    counts: dict[str, int] = {}
    for row in campaign.campaign_regions.all():
        counts[row.split] = counts.get(row.split, 0) + tiles.filter(region=row.region_id).count()
    return counts
