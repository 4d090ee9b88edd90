"""What an annotator submitted, independent of the labeling tool: a bridge to a tool hands it to this room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon

from labeling.models import Annotation, Prediction

UNCERTAIN = "uncertain"
BAD_IMAGERY = "bad imagery"
# With these verdicts the annotator makes no statement about the tile: it is neither labelled nor a negative.
NO_STATEMENT = (UNCERTAIN, BAD_IMAGERY)


@dataclass(frozen=True)
class Shape:
    """A shape that was drawn, in tile pixels (x right, y down), valid and inside the tile."""

    region: str
    class_name: str
    geometry: MultiPolygon


@dataclass(frozen=True)
class AnnotationVersion:
    """Which state of which annotation something is.

    Attributes:
        number: Of the annotation, within the campaign's present project.
        updated: When it was saved in this state.
        skipped: Whether the annotator passed the tile over.
        raw: What was submitted, as the tool has it.
    """

    number: int
    updated: datetime
    skipped: bool
    raw: list[Any]

    @property
    def kind(self) -> Annotation.Kind:
        """What its row is."""
        return Annotation.Kind.SKIPPED if self.skipped else Annotation.Kind.SUBMITTED

    def is_recorded_by(self, row: Annotation) -> bool:
        """Whether a row says the same; times alone prove nothing."""
        same = row.kind == self.kind and row.ls_updated_at == self.updated
        return bool(same and row.result == self.raw)

    def is_older_than(self, row: Annotation) -> bool:
        """Whether a row is of the same time or a later one, or the annotation's last."""
        return bool(row.kind == Annotation.Kind.DELETED or row.ls_updated_at >= self.updated)


@dataclass
class SubmissionContent:
    """What a submission says.

    Attributes:
        shapes: Every shape that could be read.
        problems: What could not be understood, one sentence each.
        mended: What was mended without doubt, one sentence each.
        verdict: On the whole tile; empty if none was given.
    """

    shapes: list[Shape] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    verdict: str = ""

    @property
    def makes_statement(self) -> bool:
        """Whether this is a statement about the tile: understood in full, and not a verdict that says nothing."""
        return not self.problems and self.verdict not in NO_STATEMENT

    @property
    def labels(self) -> list[Shape]:
        """The shapes that become labels: none where nothing is said of the tile, or that nothing is there."""
        return self.shapes if self.makes_statement and not self.verdict else []

    @property
    def union(self) -> shapely.Geometry:
        """All labels as one geometry, in tile pixels."""
        return shapely.union_all([shape.geometry for shape in self.labels])


@dataclass(frozen=True)
class Submission:
    """One state of an annotation, and what it says.

    Attributes:
        version: Which state of which annotation.
        content: What it says.
        annotator: Who, by e-mail address where it is known.
        lead_time: Seconds of work, if known.
        prediction: What the annotator started from.
        correction_iou: IoU of the union of the shapes with the union of those shown; 1 if nothing was changed.
    """

    version: AnnotationVersion
    content: SubmissionContent
    annotator: str = ""
    lead_time: float | None = None
    prediction: Prediction | None = None
    correction_iou: float | None = None


def shapes_to_json(shapes: Sequence[Shape], classes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Shapes as an annotation's row keeps them: region, class and polygons, each a list of rings of [x, y].

    Args:
        shapes: In tile pixels.
        classes: Primary keys of the classes by name: a class that is renamed later stays the same.
    """
    return [
        {
            "region": shape.region,
            "class": classes[shape.class_name],
            "polygons": [
                [[[x, y] for x, y in ring.coords] for ring in (part.exterior, *part.interiors)]
                for part in shape.geometry.geoms
            ],
        }
        for shape in shapes
    ]


def shapes_from_json(rows: Sequence[dict[str, Any]], names: Mapping[int, str]) -> list[Shape]:
    """The inverse of `shapes_to_json`: with the classes' names of today by primary key."""
    return [
        Shape(
            row["region"],
            names[row["class"]],
            MultiPolygon([Polygon(rings[0], rings[1:]) for rings in row["polygons"]]),
        )
        for row in rows
    ]
