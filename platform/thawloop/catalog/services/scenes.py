"""Registering rasters as scenes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from thawloop.catalog.errors import AlreadyDefined, RasterRefused
from thawloop.catalog.files import ByteProgress, canonical_uri, checksum
from thawloop.catalog.geometry import multipolygon_to_geos
from thawloop.catalog.models import Modality, Scene
from thawloop.catalog.rasters import RasterFacts, files_of, inspect_raster, match_bands, probe_pixels
from thawloop.catalog.readings import complete
from thawloop.catalog.scene_options import AS_THE_FILE_SAYS, SceneOptions
from thawloop.catalog.services.defining import validated
from thawloop.core.errors import Refused
from thawloop.core.services import audit

_COMPARED = ("acquired", "nodata", "mask_band")


@dataclass(frozen=True)
class SceneDraft:
    """A scene that passed every check and is not stored yet; `options` is what was said of its file."""

    scene: Scene
    options: SceneOptions


def register_scene(
    uri: str, *, modality: Modality, acquired: date, options: SceneOptions = AS_THE_FILE_SAYS
) -> tuple[Scene, bool]:
    """Register a raster as a scene of a modality; the same file twice is the same scene.

    Args:
        uri: Path or s3:// URI below an allowed root.
        modality: A measured modality.
        acquired: When the ground was seen.
        options: What is said of the file.

    Returns:
        The scene, and whether it is new.

    Raises:
        Refused: The file cannot be used; the sentence says why and what to do. Nothing was changed.
    """
    return store_scenes([prepare_scene(uri, modality=modality, acquired=acquired, options=options)])[0]


def prepare_scene(
    uri: str,
    *,
    modality: Modality,
    acquired: date,
    options: SceneOptions = AS_THE_FILE_SAYS,
    progress: ByteProgress | None = None,
) -> SceneDraft:
    """Do all of `register_scene` but the storing, so that many files can be checked before any is stored.

    Args:
        uri: As for `register_scene`, and so are `modality`, `acquired` and `options`.
        modality: A measured modality.
        acquired: When the ground was seen.
        options: What is said of the file.
        progress: Called with (bytes read, bytes in all) while the checksum is computed.

    Raises:
        Refused: As `register_scene`.
    """
    uri = canonical_uri(uri)
    _check_terms(uri, modality, acquired, options)
    facts = inspect_raster(uri, color_table_ignored=options.color_table == "ignored")
    bands = _checked_bands(facts, modality, options.band_indexes)
    if options.mask_band is not None:
        _check_band_exists(facts, options.mask_band, "mask band")
    probe_pixels(uri, [*bands, *([options.mask_band] if options.mask_band else [])])
    digest, size = checksum(files_of(uri), progress)
    scene = Scene(
        modality=modality,
        uri=uri,
        band_indexes=bands,
        mask_band=options.mask_band,
        nodata=options.nodata,
        footprint=multipolygon_to_geos(facts.footprint),
        crs=facts.crs,
        width=facts.width,
        height=facts.height,
        transform=list(facts.transform),
        pixel_size=facts.pixel_size,
        dtype=facts.dtype,
        acquired=acquired,
        checksum=digest,
        size_bytes=size,
        provider=options.provider,
        licence=options.licence,
    )
    complete(scene, options)
    existing = Scene.objects.filter(modality=modality, checksum=digest, band_indexes=bands).first()
    if existing is not None:
        _check_same_terms(existing, scene, options)
    return SceneDraft(scene, options)


@transaction.atomic
def store_scenes(drafts: Iterable[SceneDraft]) -> list[tuple[Scene, bool]]:
    """Store drafts, all or none. Returns each scene and whether it is new."""
    return [_store(draft) for draft in drafts]


def _store(draft: SceneDraft) -> tuple[Scene, bool]:
    scene = draft.scene
    # Another process may have stored it since the draft was made, or be about to; one batch may name a file twice.
    Modality.objects.select_for_update().get(pk=scene.modality_id)
    existing = Scene.objects.filter(
        modality=scene.modality, checksum=scene.checksum, band_indexes=scene.band_indexes
    ).first()
    if existing is not None:
        _check_same_terms(existing, scene, draft.options)
        _follow_move(existing, scene.uri)
        return existing, False
    validated(scene).save()
    audit("catalog.register_scene", scene, after=_summary(scene))
    return scene, True


def _summary(scene: Scene) -> dict[str, Any]:
    return {
        "uri": scene.uri,
        "modality": scene.modality.name,
        "bands": scene.band_indexes,
        "acquired": scene.acquired.isoformat(),
        "checksum": scene.checksum,
        "scale": scene.scale,
        "offset": scene.offset,
        "alpha": scene.alpha,
        "valid_share": scene.valid_share,
    }


def _follow_move(existing: Scene, uri: str) -> None:
    """A file that is missing at its old path and is registered at another was moved: update the scene's path."""
    if existing.uri == uri:
        return
    try:
        inspect_raster(existing.uri, color_table_ignored=True)
    except Refused:
        before = {"uri": existing.uri}
        existing.uri = uri
        existing.save(update_fields=["uri"])
        audit("catalog.move_scene", existing, before=before, after={"uri": uri}, reason="The file was moved.")


def _check_terms(uri: str, modality: Modality, acquired: date, options: SceneOptions) -> None:
    if modality.is_derived:
        raise RasterRefused(
            f"Modality `{modality.name}` is computed from others ({modality.get_derivation_display()}), so no raster "
            f"can be registered for it: register {uri} under a measured modality."
        )
    scale, offset = (
        (1.0 if options.scale is None else options.scale),
        (0.0 if options.offset is None else options.offset),
    )
    if not (math.isfinite(scale) and math.isfinite(offset)) or scale == 0:
        raise RasterRefused(
            f"Scale must be a finite number other than 0 and offset a finite one, not {scale}, {offset}."
        )
    if options.alpha not in (None, *Scene.Alpha.values):
        raise RasterRefused(f"alpha is {options.alpha!r}: say `validity` or `ignored`, or leave it out.")
    if options.color_table not in (None, "ignored"):
        raise RasterRefused(f"color_table is {options.color_table!r}: say `ignored`, or leave it out.")
    if acquired > timezone.now().date() + timedelta(days=1):
        raise RasterRefused(f"{uri} cannot have been acquired in the future ({acquired}): check the date.")


def _checked_bands(facts: RasterFacts, modality: Modality, band_indexes: Sequence[int] | None) -> list[int]:
    if band_indexes is None:
        return match_bands(facts, modality.bands)
    bands = list(band_indexes)
    if len(bands) != len(modality.bands):
        raise RasterRefused(
            f"Modality `{modality.name}` has {len(modality.bands)} band(s) ({', '.join(modality.bands)}), but "
            f"{len(bands)} were named for {facts.uri}: {', '.join(map(str, bands))}."
        )
    for band in bands:
        _check_band_exists(facts, band, "band")
    return bands


def _check_band_exists(facts: RasterFacts, band: int, what: str) -> None:
    if not 1 <= band <= facts.bands:
        raise RasterRefused(f"{facts.uri} has no {what} {band}: its bands are numbered 1 to {facts.bands}.")


def _check_same_terms(existing: Scene, wanted: Scene, options: SceneOptions) -> None:
    """What was said must equal what is stored; what was left to the file stays as it was read at registration."""
    if options.scale is None and options.offset is None:
        if (existing.scale, existing.offset) != (wanted.scale, wanted.offset):
            existing.warnings = [
                *existing.warnings,
                f"The file declares scale and offset {wanted.scale:g} and {wanted.offset:g}, but it was registered "
                f"with {existing.scale:g} and {existing.offset:g}, which count.",
            ]
        compared: tuple[str, ...] = _COMPARED
    else:
        compared = (*_COMPARED, "scale", "offset")
    if options.alpha is not None:
        compared = (*compared, "alpha")
    elif existing.alpha != wanted.alpha:
        existing.warnings = [
            *existing.warnings,
            "Its alpha band looks like a label mask, but it was registered as validity, which counts.",
        ]
    for field in compared:
        old, new = getattr(existing, field), getattr(wanted, field)
        if old != new and not _both_nan(old, new):
            raise AlreadyDefined(
                f"{wanted.uri} is already registered as scene {existing.pk} with {field} = {old}, not {new}: these are "
                "fixed once tiles may have been read from a scene."
            )


def _both_nan(a: object, b: object) -> bool:
    return isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
