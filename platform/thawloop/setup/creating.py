"""Setting up a campaign: everything a campaign file describes, in one transaction, as often as you like."""

from typing import Any

from django.contrib.gis.db.models import Union
from django.contrib.gis.geos import MultiPolygon, Polygon
from django.db import transaction

from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion, LandformClass, Split
from thawloop.catalog.geometry import multipolygon_to_geos
from thawloop.catalog.models import Modality, Region, Scene, TileGrid
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import (
    create_tiles,
    define_grid,
    define_modality,
    define_region,
    ensure_builtin,
    register_scene,
    split_region,
)
from thawloop.catalog.vectors.areas import read_area
from thawloop.core.context import current_actor
from thawloop.core.errors import Conflict, Refused
from thawloop.core.services import audit
from thawloop.setup.rasters import ModalitySpec
from thawloop.setup.spec import CampaignSpec, ClassSpec, PeriodSpec, RegionSpec


class CampaignError(Refused):
    """A campaign cannot be set up as its file describes it."""


class CampaignExists(Conflict):
    """A campaign of this name exists and differs in something that cannot change."""


def create_campaign(spec: CampaignSpec) -> Campaign:
    """Register what a campaign file describes: modalities, scenes, grid, regions with their splits, tiles, campaign.

    Calling it again with the same file changes nothing; with a file that has grown (more scenes, regions, other
    acquisition or model settings) it adds what is new. Everything happens in one transaction.

    Raises:
        CampaignError: the file describes something that does not fit together, e.g. a region without imagery.
        CampaignExists: a campaign of this name has another grid, period, class, anchor or split.
        Refused: a raster or region file is missing, broken or outside the allowed roots.
    """
    with transaction.atomic():
        modalities = {item.name: _modality(item) for item in spec.modalities}
        scenes = {item.name: _scenes(item, modalities[item.name], spec.period) for item in spec.modalities}
        _refuse_without_sources(spec, modalities)
        grid = define_grid(
            spec.grid.name, spec.grid.srid, spec.grid.pixel_size, spec.grid.tile_size, overlap=spec.grid.overlap
        )
        campaign = _campaign(spec, grid, modalities)
        for region in spec.regions:
            geometry = _area(region, scenes)
            for split, part in _parts(region, geometry, grid).items():
                _add_region(campaign, part, split)
                create_tiles(
                    grid,
                    part,
                    period=spec.period.label,
                    period_start=spec.period.start,
                    period_end=spec.period.end,
                    min_coverage_by=modalities[spec.anchor.name],
                )
            _refuse_without_tiles(spec, region, grid)
    return campaign


def _modality(spec: ModalitySpec) -> Modality:
    if not spec.definition:
        try:
            return ensure_builtin(spec.name)
        except Refused as error:
            known = Modality.objects.filter(name=spec.name).first()
            if known is not None:  # defined earlier, e.g. in the admin
                return known
            raise CampaignError(f"modality `{spec.name}`: {error}") from error
    fields = dict(spec.definition)
    if "source" in fields:
        fields["source"] = Modality.objects.filter(name=fields["source"]).first() or ensure_builtin(fields["source"])
    return define_modality(spec.name, **fields)


def _scenes(spec: ModalitySpec, modality: Modality, period: PeriodSpec) -> list[int]:
    if spec.files and modality.is_derived:
        raise CampaignError(f"modality `{spec.name}` is derived from others, so it cannot have `files`.")
    found = []
    for raster in spec.rasters:
        options = SceneOptions(
            band_indexes=raster.bands,
            scale=raster.scale,
            offset=raster.offset,
            nodata=raster.nodata,
            mask_band=raster.mask_band,
            alpha=raster.alpha,
            color_table=raster.color_table,
            provider=raster.provider,
            licence=raster.licence,
        )
        scene, _ = register_scene(raster.path, modality=modality, acquired=raster.date or period.start, options=options)
        found.append(scene.pk)
    return found


def _refuse_without_sources(spec: CampaignSpec, modalities: dict[str, Modality]) -> None:
    """A measured modality without a single scene anywhere would silently stay empty."""
    for item in spec.modalities:
        modality = modalities[item.name]
        if not modality.is_derived and not modality.scenes.exists():
            raise CampaignError(f"{spec.source}: modality `{item.name}` has no `files` and no scene registered before.")
        if modality.source is not None and not modality.source.scenes.exists():
            raise CampaignError(
                f"{spec.source}: modality `{item.name}` is derived from `{modality.source.name}`, which has no scene; "
                f"add a `[[modalities]]` table for `{modality.source.name}` with its `files`."
            )


def _campaign(spec: CampaignSpec, grid: TileGrid, modalities: dict[str, Modality]) -> Campaign:
    changeable: dict[str, Any] = {
        "title": spec.campaign.title,
        "score_threshold": spec.campaign.score_threshold,
        "split_buffer": spec.campaign.split_buffer,
        "licence": spec.campaign.licence,
        "citation": spec.campaign.citation,
        "acquisition": spec.acquisition.to_json(),
        "detector": spec.detector.to_json(),
    }
    fixed: dict[str, Any] = {
        "grid": grid,
        "period": spec.period.label,
        "period_start": spec.period.start,
        "period_end": spec.period.end,
    }
    campaign = Campaign.objects.select_for_update(of=("self",)).filter(name=spec.name).first()
    if campaign is None:
        campaign = Campaign.objects.create(name=spec.name, created_by=current_actor().user, **fixed, **changeable)
        campaign.classes.set([_landform_class(item) for item in spec.landforms])
        _add_modalities(campaign, spec, modalities)
        audit("labeling.create_campaign", campaign, after=changeable | {"grid": grid.name, "period": spec.period.label})
        return campaign
    _refuse_other_ground(campaign, spec, fixed)
    before = {name: getattr(campaign, name) for name in changeable}
    if before != changeable:
        for name, value in changeable.items():
            setattr(campaign, name, value)
        campaign.save(update_fields=list(changeable))
        audit("labeling.change_campaign", campaign, before=before, after=changeable)
    return campaign


def _refuse_other_ground(campaign: Campaign, spec: CampaignSpec, fixed: dict[str, Any]) -> None:
    """What predictions, labels and models rest on cannot change under them."""
    used = {item.name: (item.anchor, item.shown, item.model_input) for item in spec.modalities if _is_used(item)}
    kept = {
        row.modality.name: (row.is_anchor, row.is_shown, row.is_model_input)
        for row in campaign.campaign_modalities.select_related("modality")
    }
    differing = [name for name, value in fixed.items() if getattr(campaign, name) != value]
    if {item.name for item in spec.landforms} != set(campaign.classes.values_list("name", flat=True)):
        differing.append("classes")
    if used != kept:
        differing.append("modalities")
    if differing:
        raise CampaignExists(
            f"{spec.source}: the campaign `{spec.name}` exists with another {', '.join(differing)}, which cannot "
            f"change once predictions and labels rest on it; give the file's campaign another name."
        )


def _landform_class(spec: ClassSpec) -> LandformClass:
    fields = {"title": spec.title, "color": spec.color, "description": spec.description}
    return LandformClass.objects.get_or_create(name=spec.name, defaults=fields)[0]


def _is_used(spec: ModalitySpec) -> bool:
    """Whether a modality is more than the source of derived ones."""
    return spec.shown or spec.model_input


def _add_modalities(campaign: Campaign, spec: CampaignSpec, modalities: dict[str, Modality]) -> None:
    CampaignModality.objects.bulk_create(
        CampaignModality(
            campaign=campaign,
            modality=modalities[item.name],
            position=position,
            is_anchor=item.anchor,
            is_shown=item.shown,
            is_model_input=item.model_input,
        )
        for position, item in enumerate(item for item in spec.modalities if _is_used(item))
    )


def _area(spec: RegionSpec, scenes: dict[str, list[int]]) -> MultiPolygon:
    if spec.file is not None:
        return multipolygon_to_geos(read_area(spec.file, layer=spec.layer or None, crs=spec.crs or None))
    if spec.bbox is not None:
        west, south, east, north = spec.bbox
        return MultiPolygon(Polygon.from_bbox((west, south, east, north)), srid=4326)
    footprint = Scene.objects.filter(pk__in=scenes[spec.footprint_of]).aggregate(area=Union("footprint"))["area"]
    return footprint if isinstance(footprint, MultiPolygon) else MultiPolygon(footprint, srid=4326)


def _parts(spec: RegionSpec, geometry: MultiPolygon, grid: TileGrid) -> dict[str, Region]:
    region = define_region(spec.name, geometry, title=spec.title)
    if isinstance(spec.split, str):
        return {spec.split: region}
    split = spec.split
    return split_region(region, grid, fractions=split.shares, block_tiles=split.block_tiles, seed=split.seed)


def _add_region(campaign: Campaign, region: Region, split: str) -> None:
    row, created = CampaignRegion.objects.get_or_create(campaign=campaign, region=region, defaults={"split": split})
    if not created and row.split != Split(split):
        raise CampaignExists(
            f"the region `{region.name}` is the {row.split} part of campaign `{campaign.name}` and cannot become its "
            f"{split} part: earlier measurements would no longer hold."
        )


def _refuse_without_tiles(spec: CampaignSpec, region: RegionSpec, grid: TileGrid) -> None:
    names = [region.name, *(f"{region.name}-{split}" for split in Split.values)]
    if not grid.tiles.filter(region__name__in=names, period=spec.period.label).exists():
        raise CampaignError(
            f"{spec.source}: region `{region.name}` gets no tile: no scene of the anchor modality "
            f"`{spec.anchor.name}` lies in it. Compare the region's place with the rasters' (gdalinfo shows it)."
        )
