"""Label revisions from annotations. Only people change labels: whatever calls this acts on what somebody submitted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import cast

import numpy as np
from django.contrib.gis.geos import MultiPolygon as GeosMultiPolygon
from shapely.geometry import GeometryCollection, MultiPolygon

from labeling.models import Annotation, AnnotationTask, Label, LabelRevision
from labeling.submission import Shape
from thawloop.campaigns.models import LandformClass
from thawloop.catalog.geometry import as_multipolygon, to_geographic, to_geos, to_shapely
from thawloop.catalog.models import Tile
from thawloop.core.context import current_actor

# Vertices that moved by less (degrees; 0.1 mm) did not move: browsers do not keep the last digits.
SAME_PLACE = 1e-9
REVIEWED = "review: "  # how the reason of a reviewer's revision begins
_REASONS = {
    Annotation.Kind.SUBMITTED: "annotation {id} does not draw it",
    Annotation.Kind.SKIPPED: "annotation {id} was skipped",
    Annotation.Kind.DELETED: "annotation {id} was deleted in Label Studio",
}


@dataclass(frozen=True)
class Cause:
    """The annotation row that makes labels change, and a person's or process's words for why."""

    annotation: Annotation
    reason: str = ""


@dataclass
class Changes:
    """Labels that a row changed."""

    drawn: list[LabelRevision] = field(default_factory=list)
    changed: list[LabelRevision] = field(default_factory=list)
    retired: list[LabelRevision] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many of each kind, for the audit trail."""
        return {"drawn": len(self.drawn), "changed": len(self.changed), "retired": len(self.retired)}


def label_origin(annotation: Annotation, region: str) -> str:
    """The name of a label that comes from an annotation's region; unusable region ids are replaced by their hash."""
    plain = region.isascii() and region.isprintable() and len(region) <= 60
    number: int | str = annotation.ls_annotation_id
    if annotation.ls_generation:
        number = f"{annotation.ls_generation}/{number}"
    return f"ls:{number}:{region if plain else sha256(region.encode()).hexdigest()[:32]}"


def settle_labels(task: AnnotationTask, holding: Annotation | None, shapes: Sequence[Shape], cause: Cause) -> Changes:
    """Make the labels of a task exactly these shapes, with a revision for each that differs from its current one.

    Args:
        task: Locked by the caller, in whose transaction this runs.
        holding: The annotation that draws the shapes; none if no annotation holds.
        shapes: In tile pixels.
        cause: What made this necessary.
    """
    changes = Changes()
    known = Label.objects.filter(campaign=task.campaign, tile=task.tile, origin__startswith="ls:")
    labels = {label.origin: label for label in known.select_related("current__landform_class")}
    classes = {landform.name: landform for landform in LandformClass.objects.all()}
    drawn: set[str] = set()
    if holding is not None:
        for shape in shapes:
            origin = label_origin(holding, shape.region)
            drawn.add(origin)
            _draw(task, labels.get(origin), origin, shape, classes[shape.class_name], holding, cause, changes)
    for origin, label in labels.items():
        if origin not in drawn:
            _retire(label, holding, cause, changes)
    return changes


def geographic(tile: Tile, shape: MultiPolygon) -> MultiPolygon:
    """A shape in tile pixels as EPSG:4326."""
    rings = [[np.asarray(ring.coords) for ring in (part.exterior, *part.interiors)] for part in shape.geoms]
    return as_multipolygon(GeometryCollection([to_geographic(tile, part) for part in rings]))


def _draw(
    task: AnnotationTask,
    label: Label | None,
    origin: str,
    shape: Shape,
    landform_class: LandformClass,
    holding: Annotation,
    cause: Cause,
    changes: Changes,
) -> None:
    geometry = geographic(task.tile, shape.geometry)
    current = label.current if label else None
    if current is not None and current.annotation_id == holding.pk and current.reason.startswith(REVIEWED):
        return  # a reviewer has decided about this very submission
    if current is not None and current.state == LabelRevision.State.PRESENT:
        same_place = to_shapely(current.geometry).normalize().equals_exact(geometry.normalize(), SAME_PLACE)
        if same_place and current.landform_class_id == landform_class.pk:
            return
    label = label or Label.objects.create(campaign=task.campaign, tile=task.tile, origin=origin)
    new = LabelRevision(
        label=label,
        state=LabelRevision.State.PRESENT,
        landform_class=landform_class,
        geometry=cast(GeosMultiPolygon, to_geos(geometry)),
        annotation=holding,
        author=holding.annotator,
        author_name=holding.annotator_name or current_actor().name,
        reason="drawn in Label Studio" if current is None else "changed in Label Studio",
    )
    if holding.pk != cause.annotation.pk:
        new.reason = f"holds again: {_why(cause)}"[:300]
    (changes.drawn if current is None else changes.changed).append(revise(label, new))


def _retire(label: Label, holding: Annotation | None, cause: Cause, changes: Changes) -> None:
    current = label.current
    if current is None or current.state == LabelRevision.State.RETIRED:
        return
    row = cause.annotation
    new = LabelRevision(
        label=label,
        state=LabelRevision.State.RETIRED,
        landform_class=current.landform_class,
        geometry=current.geometry,
        properties=current.properties,
        annotation=row,
        author=row.annotator,
        author_name=row.annotator_name or current_actor().name,
        reason=_why(cause)[:300],
    )
    changes.retired.append(revise(label, new))


def _why(cause: Cause) -> str:
    row = cause.annotation
    sentence = _REASONS[Annotation.Kind(row.kind)].format(id=row.ls_annotation_id)
    if row.kind == Annotation.Kind.SUBMITTED and row.problems:
        sentence = f"annotation {row.ls_annotation_id} was not understood in full"
    return f"{sentence}. {cause.reason}" if cause.reason else sentence


def revise(label: Label, revision: LabelRevision) -> LabelRevision:
    """Make a revision the label's current one; call inside a transaction."""
    revision.number = label.current.number + 1 if label.current else 1
    revision.save()
    label.current = revision
    label.save(update_fields=["current"])
    return revision
