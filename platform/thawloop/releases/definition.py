"""What a release's dataset.json says, without the statistics of its pixels."""

import json
from pathlib import PurePosixPath
from typing import Any

from django.db.models import Q

from thawloop.campaigns.models import Campaign, CampaignModality
from thawloop.catalog.models import Modality
from thawloop.catalog.selectors import measured_inputs, scenes_of_period

# The parts of a definition that decide what the files look like, without names, dates and versions.
SHAPE = ("classes", "modalities", "grid")


def define(campaign: Campaign) -> dict[str, Any]:
    """Classes, modalities, grid and scenes of a campaign as they are now."""
    inputs = _inputs(campaign)
    return {
        "name": campaign.name,
        **_shape(campaign, inputs),
        "provenance": {
            "campaign": campaign.title,
            "licence": campaign.licence,
            "citation": campaign.citation,
            "period": [campaign.period_start.isoformat(), campaign.period_end.isoformat()],
            "scenes": scenes(campaign, [item.modality for item in inputs]),
        },
    }


def define_shape(campaign: Campaign) -> dict[str, Any]:
    """Classes, modalities and grid alone: what a model sees of a release, without looking for scenes."""
    return _shape(campaign, _inputs(campaign))


def _inputs(campaign: Campaign) -> list[CampaignModality]:
    return list(
        campaign.campaign_modalities.filter(Q(is_model_input=True) | Q(is_anchor=True))
        .select_related("modality__source")
        .order_by("-is_anchor", "position")
    )


def _shape(campaign: Campaign, inputs: list[CampaignModality]) -> dict[str, Any]:
    grid = campaign.grid
    return {
        # By age, not by name: a class that joins later must not move the others' numbers.
        "classes": [item.name for item in campaign.classes.order_by("pk")],
        "modalities": [_modality(item) for item in inputs],
        "grid": {
            "srid": grid.srid,
            "pixel_size": grid.pixel_size,
            "tile_size": grid.tile_size,
            "overlap": grid.overlap,
        },
    }


def shape_of(definition: dict[str, Any]) -> str:
    """Equal for definitions that make the same files of the same members."""
    checksums = sorted(scene["checksum"] for scene in definition["provenance"]["scenes"])
    terms = [definition["provenance"].get(key, "") for key in ("licence", "citation")]
    parts = [[definition[key] for key in SHAPE], checksums]
    return json.dumps([*parts, terms] if any(terms) else parts, sort_keys=True)


def _modality(item: CampaignModality) -> dict[str, Any]:
    modality = item.modality
    return {
        "name": modality.name,
        "bands": list(modality.bands),
        "range": [modality.range_min, modality.range_max],
        "unit": modality.unit,
        "nodata": None,
        "anchor": item.is_anchor,
        "derivation": modality.expression or modality.derivation,
    }


def scenes(campaign: Campaign, modalities: list[Modality]) -> list[dict[str, Any]]:
    """The rasters that chips of these modalities can be read from, derived modalities' sources included."""
    meets_a_region = Q(pk__in=[])
    for row in campaign.campaign_regions.select_related("region"):
        meets_a_region |= Q(footprint__intersects=row.region.geometry)
    measured = {source.pk: source for modality in modalities for source in measured_inputs(modality)}
    return [
        {
            "modality": modality.name,
            "file": PurePosixPath(scene.uri).name,
            "checksum": scene.checksum,
            "bands": scene.band_indexes,
            "acquired": scene.acquired.isoformat(),
            "provider": scene.provider,
            "licence": scene.licence,
        }
        for modality in sorted(measured.values(), key=lambda found: found.name)
        for scene in scenes_of_period(modality, campaign.period_start, campaign.period_end)
        .filter(meets_a_region)
        .order_by("acquired", "checksum")
    ]
