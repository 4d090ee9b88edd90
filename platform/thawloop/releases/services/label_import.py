"""Import a label file as truth."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from django.contrib.gis.geos import MultiPolygon as StoredMultiPolygon
from django.db import IntegrityError, transaction
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from labeling.models import Label, LabelImport, LabelRevision
from labeling.signals import labels_arrived
from thawloop.campaigns.models import Campaign, LandformClass
from thawloop.catalog.geometry import to_geos, to_shapely
from thawloop.catalog.vectors.reading import Feature, VectorFile, read_vector_file
from thawloop.core.context import current_actor
from thawloop.core.planner import renew_statistics
from thawloop.core.services import audit
from thawloop.core.storage import checked_uri, sha256
from thawloop.releases.errors import LabelFileRefused, ReleaseConflict
from thawloop.releases.plausibility import Plausibility
from thawloop.releases.services.label_writing import NewLabel, stage, write_staged
from thawloop.releases.study_area import StudyArea
from thawloop.releases.tally import Tally
from thawloop.releases.unclear import is_guess, unclear_ground, was_lost

COVERAGES = ("none", "regions")


@dataclass(frozen=True)
class ClassRule:
    """Which class the features of a file get, and whether the file is exhaustive."""

    landform_class: LandformClass | None
    class_field: str | None
    known: dict[str, LandformClass]
    exhaustive: bool


def import_labels(
    campaign: Campaign,
    path: str | Path,
    *,
    landform_class: LandformClass | str | None = None,
    class_field: str | None = None,
    coverage: str | BaseGeometry = "none",
    splits: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    crs: str | None = None,
    layer: str | None = None,
    buffer_points: float | None = None,
    max_area: float | None = None,
    dry_run: bool = False,
) -> LabelImport:
    """Import every polygon of a label file as a label of the campaign; the same again changes nothing.

    What counts as the same is what was read and how it is to be taken, not the bytes of the main file.

    Args:
        campaign: Whose truth it becomes.
        path: GeoJSON, GeoPackage, Shapefile, KML, FlatGeobuf, CSV, tab-separated text or MapInfo file, plain or zipped,
            below one of THAWLOOP_DATA_ROOTS.
        landform_class: What all features are; may be left out if the campaign has one class.
        class_field: Attribute that names each feature's class.
        coverage: `none`; `regions`: tiles in the chosen regions are exhaustively labelled by this file, so that tiles
            without a label are true negatives; or a shapely geometry in EPSG:4326 with the same meaning. Where a
            feature could not be used, or only after a repair that was a guess, nothing is said of tiles.
        splits: Take only labels in regions of these splits; the others are counted as held back. A label across the
            border belongs where its representative point is, and with a coverage wherever it reaches into.
        regions: Take only labels in these regions (names).
        crs: Coordinate system of the file, where it names none or a wrong one.
        layer: Which layer, where it has several.
        buffer_points: Radius in metres of the circles that stand for points.
        max_area: Largest area that one landform may have, in square kilometres; None: THAWLOOP_MAX_LANDFORM_KM2, and no
            more than ten times all regions of the campaign.
        dry_run: Say what would happen and write nothing; the result is then unsaved.

    Returns:
        The import; `counts` says how many features were read, created, duplicate, unchanged, repaired, refused,
        held back, and which (`refusals`, `repairs`: the first of them). Where the same was imported before, that
        import, `already_there`.

    Raises:
        LabelFileRefused: The file cannot be read, is of another place, or holds nothing to take.
        ReleaseConflict: Somebody else is importing the same right now.
    """
    file = _local(checked_uri(str(path)))
    wanted = _wanted(campaign, landform_class, class_field, buffer_points, exhaustive=coverage != "none")
    area = StudyArea.of(campaign, splits=splits, regions=regions)
    options = {
        "class": wanted.landform_class.name if wanted.landform_class else None,
        "class_field": class_field,
        "coverage": coverage if isinstance(coverage, str) else "geometry",
        "splits": sorted(splits) if splits else None,
        "regions": sorted(regions) if regions else None,
    }
    covered = _covered(coverage, area)
    source = read_vector_file(file, layer=layer, crs=crs, buffer_points=buffer_points)
    tally = Tally(read=len(source.features))
    labels = _collect(source, wanted, area, tally, Plausibility.of(area, max_area))
    _refuse_empty(source, labels, tally, area, covered=covered is not None)
    found = LabelImport(
        campaign=campaign,
        file_name=source.name[:300],
        checksum=sha256(str(file)),
        fingerprint=_fingerprint(source, options, area, covered, max_area),
        coverage=_stored(covered) if covered is not None else None,
        unclear=_stored(unclear) if (unclear := unclear_ground(tally.lost, covered)) is not None else None,
        created_by=current_actor().user,
    )
    return _write(found, labels, tally, options, dry_run=dry_run)


def _local(path: str) -> Path:
    if path.startswith("/vsi"):
        raise LabelFileRefused(
            f"Label files are read from folders, not from s3://: copy {Path(path).name} to one first."
        )
    return Path(path)


def _wanted(
    campaign: Campaign,
    landform_class: LandformClass | str | None,
    class_field: str | None,
    buffer: float | None,
    *,
    exhaustive: bool,
) -> ClassRule:
    known = {item.name.lower(): item for item in campaign.classes.all()}
    if landform_class is not None and class_field is not None:
        raise LabelFileRefused("Give either one class for all features or the field that names it, not both.")
    if buffer is not None and not 0 < buffer <= 10_000:
        raise LabelFileRefused(f"A radius of {buffer:g} m around points makes no landform: use 1 to 10,000 metres.")
    if class_field is not None:
        return ClassRule(None, class_field, known, exhaustive)
    if landform_class is None:
        if len(known) != 1:
            raise LabelFileRefused(
                f"Campaign {campaign.name} maps {_names(known)}: say which one the file holds, or which field names it."
            )
        return ClassRule(next(iter(known.values())), None, known, exhaustive)
    name = landform_class if isinstance(landform_class, str) else landform_class.name
    if name.lower() not in known:
        raise LabelFileRefused(f"Campaign {campaign.name} maps {_names(known)}, not `{name}`: use one of its classes.")
    return ClassRule(known[name.lower()], None, known, exhaustive)


def _names(known: dict[str, LandformClass]) -> str:
    return ", ".join(sorted(item.name for item in known.values())) or "no class yet"


def _covered(coverage: str | BaseGeometry, area: StudyArea) -> MultiPolygon | None:
    if isinstance(coverage, BaseGeometry):
        polygons = [part for part in getattr(coverage, "geoms", [coverage]) if part.geom_type == "Polygon"]
        return MultiPolygon(polygons) if polygons else None
    if coverage not in COVERAGES:
        raise LabelFileRefused(f"Coverage `{coverage}` is unknown: use {' or '.join(COVERAGES)}.")
    return area.chosen if coverage == "regions" else None


def _fingerprint(
    source: VectorFile,
    options: dict[str, Any],
    area: StudyArea,
    covered: MultiPolygon | None,
    max_area: float | None,
) -> str:
    """Of everything that decides what an import writes: the features as they were read, not the file's bytes.

    A corrected .prj, another layer or radius, a changed .dbf, what an open QGIS keeps beside its file: all of it shows
    in the features.
    """
    digest = hashlib.sha256(json.dumps([options, max_area, source.fields], sort_keys=True).encode())
    for shape in (covered, area.chosen if area.is_part else None):
        digest.update(b"" if shape is None else shapely.to_wkb(shape))
    shapes = shapely.to_wkb([feature.polygons for feature in source.features])
    for feature, shape in zip(source.features, shapes, strict=True):
        row = [feature.id, feature.refused, feature.properties]
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\0" + (shape or b""))
    return digest.hexdigest()


def _collect(
    source: VectorFile, wanted: ClassRule, area: StudyArea, tally: Tally, plausibility: Plausibility
) -> list[NewLabel]:
    """The labels of a file that are sound and wanted; everything else is tallied."""
    labels: list[NewLabel] = []
    seen: set[tuple[str, bytes]] = set()
    shapes = np.array([feature.polygons for feature in source.features], dtype=object)
    meets = area.meets(shapes)
    # Equal for geometries with the same rings, however they are ordered or started.
    rings = shapely.to_wkb(shapely.normalize(shapes))
    taken = area.wants(shapes, exhaustive=wanted.exhaustive)
    for number, feature in enumerate(source.features):
        if feature.polygons is None:
            tally.refuse(feature.id, feature.refused, empty=feature.is_empty, point=feature.is_point)
            tally.lost += [feature] if was_lost(feature) else []
            continue
        if doubt := plausibility.doubt(feature.polygons, meets_regions=bool(meets[number])):
            tally.refuse(feature.id, doubt)
            tally.lost.append(feature)
            continue
        kind = _class_of(feature, wanted, source.name)
        key = (kind.name, rings[number])
        if key in seen:
            tally.duplicate += 1
            continue
        seen.add(key)
        if feature.repaired:
            tally.repair(feature.id, feature.repaired, feature.area_change)
            tally.lost += [feature] if is_guess(feature) else []
        tally.extend(feature.polygons)
        tally.outside += not meets[number]
        if taken[number]:
            labels.append(NewLabel(feature.id, kind, feature.polygons, feature.properties))
        else:
            tally.held_back += 1
    return labels


def _class_of(feature: Feature, wanted: ClassRule, name: str) -> LandformClass:
    if wanted.landform_class is not None:
        return wanted.landform_class
    field = wanted.class_field or ""
    if field not in feature.properties:
        fields = ", ".join(list(feature.properties)[:12])
        raise LabelFileRefused(f"{name} has no field `{field}`: its fields are {fields or 'none'}.")
    value = str(feature.properties[field] if feature.properties[field] is not None else "").strip()
    if value.lower() not in wanted.known:
        raise LabelFileRefused(
            f"{name}, feature {feature.id}: class `{value[:50]}` in field `{field}` is unknown; this campaign maps "
            f"{_names(wanted.known)}."
        )
    return wanted.known[value.lower()]


def _refuse_empty(source: VectorFile, labels: list[NewLabel], tally: Tally, area: StudyArea, *, covered: bool) -> None:
    if tally.read == 0:
        raise LabelFileRefused(f"{source.name} holds no feature: nothing to import.")
    if tally.bounds is None:
        if tally.points == tally.read:
            raise LabelFileRefused(
                f"{source.name} holds {tally.points:,} points and no polygon: this campaign needs polygons; give a "
                "radius with --buffer-points METRES if circles will do."
            )
        first = tally.refusals[0]
        raise LabelFileRefused(
            f"{source.name} holds no usable polygon: all {tally.refused:,} features are refused, e.g. feature "
            f"{first['feature']} {first['reason']}."
        )
    if tally.outside == tally.sound:
        raise LabelFileRefused(area.elsewhere(source.name, tally.bounds))
    if not labels and not covered:
        raise LabelFileRefused(
            f"None of {source.name}'s {tally.sound:,} polygons lies in the regions chosen ({area.names}): nothing to "
            "import."
        )


def _write(
    found: LabelImport, labels: list[NewLabel], tally: Tally, options: dict[str, Any], *, dry_run: bool
) -> LabelImport:
    try:
        with transaction.atomic():
            # One import after the other: two files at once would not see that they say the same.
            Campaign.objects.select_for_update(of=("self",)).get(pk=found.campaign_id)
            tally.created = stage(found.campaign_id, labels)
            tally.unchanged = len(labels) - tally.created
            found.counts = tally.to_json() | {"options": options}
            if known := _same(found):
                known.already_there = True
                return known
            if dry_run:
                return found
            found.save()
            write_staged(found)
            counts = {key: value for key, value in found.counts.items() if isinstance(value, int)}
            audit("labels.import", found, after={"file": found.file_name, "checksum": found.checksum, **counts})
            renew_statistics(tally.created, Label, LabelRevision)
            labels_arrived.send(LabelImport, campaign=found.campaign)
    except IntegrityError as error:
        if "import_once" not in str(error):
            raise
        raise ReleaseConflict(f"{found.file_name} is being imported by somebody else right now: look again.") from error
    return found


def _same(found: LabelImport) -> LabelImport | None:
    """The import that stands and said all that this one would say."""
    standing = LabelImport.objects.filter(campaign=found.campaign, withdrawn__isnull=True)
    if known := standing.filter(fingerprint=found.fingerprint).first():
        return known
    if found.counts["created"]:
        return None
    # Imports of older versions know their file and options only.
    older = standing.filter(fingerprint="", checksum=found.checksum, counts__options=found.counts["options"]).first()
    same_ground = older is not None and _ground(older) == _ground(found)
    return older if same_ground else None


def _ground(found: LabelImport) -> bytes:
    return b"" if found.coverage is None else bytes(shapely.to_wkb(shapely.normalize(to_shapely(found.coverage))))


def _stored(shape: MultiPolygon) -> StoredMultiPolygon:
    stored = to_geos(shape)
    assert isinstance(stored, StoredMultiPolygon)
    return stored
