"""Storing a model's predictions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import shapely
import structlog
from django.db import connection, transaction
from numpy.typing import ArrayLike, NDArray
from shapely import GeometryType
from shapely.geometry import Polygon

from labeling.models import Prediction
from thawloop.campaigns.models import LandformClass
from thawloop.catalog.geometry import ragged, to_geographic_all
from thawloop.catalog.models import Tile
from thawloop.core.errors import Refused

log = structlog.get_logger(__name__)

STAGES = 3
_DECIMALS = 2  # hundredths of a pixel: finer than any model sees, and a third of the JSON


class PredictionError(Refused):
    """A prediction cannot be stored: it names something that the platform does not know."""


class DetectedInstance(Protocol):
    """What a detector says about one instance; the detector's own `Detection` fits."""

    @property
    def rings(self) -> Sequence[ArrayLike]:
        """Exterior, then holes, each [N, 2] of x, y in tile pixels."""

    @property
    def class_name(self) -> str:
        """Name of a landform class."""

    @property
    def score(self) -> float:
        """0 to 1."""

    @property
    def stage_scores(self) -> ArrayLike:
        """[3]"""

    @property
    def stage_boxes(self) -> ArrayLike:
        """[3, 4] x0, y0, x1, y1 in tile pixels."""

    @property
    def mask_entropy(self) -> float:
        """0 to 1."""

    @property
    def class_entropy(self) -> float:
        """0 to 1."""


@dataclass(frozen=True)
class TilePrediction:
    """What a model says about one tile.

    Attributes:
        tile: The tile, with its grid.
        detections: Its instances, in any order.
        embedding: [D], kept as float32.
        uncertainty: 0 to 1, of the whole tile.
        parts: Why it is that uncertain.
        seconds: What the prediction cost.
    """

    tile: Tile
    detections: Sequence[DetectedInstance]
    embedding: ArrayLike
    uncertainty: float
    parts: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True)
class _Shape:
    rings: list[list[list[float]]]
    geometry: Polygon


def store_predictions(model_version_id: int, said: Sequence[TilePrediction]) -> list[Prediction]:
    """Store a model version's predictions of tiles. Those stored before stay: a version predicts a tile once.

    An outline that crosses itself is repaired; one that is left without area, or split by the repair, is dropped, or
    reduced to its largest part, with a line in the log.

    Args:
        model_version_id: Who says so.
        said: What, about different tiles.

    Returns:
        The predictions of these tiles, those kept before among them, in order.

    Raises:
        PredictionError: an instance has an unknown class, or not three stages.
    """
    classes = _classes([found for one in said for found in one.detections])
    with transaction.atomic():
        tiles = [one.tile.pk for one in said]
        # Two attempts at one job must not both find a tile without a prediction.
        list(Tile.objects.select_for_update(no_key=True).filter(pk__in=tiles).order_by("pk").values_list("pk"))
        kept = {p.tile_id: p for p in Prediction.objects.filter(tile__in=tiles, model_version=model_version_id)}
        new = {one.tile.pk: one for one in said if one.tile.pk not in kept}
        made = Prediction.objects.bulk_create(
            Prediction(
                tile=one.tile,
                model_version_id=model_version_id,
                embedding=np.asarray(one.embedding, dtype="<f4").tobytes(),
                uncertainty=one.uncertainty,
                uncertainty_parts=dict(one.parts),
                seconds=one.seconds,
            )
            for one in new.values()
        )
        _write([row for one in made for row in _instances(one, new[one.tile_id].detections, classes)])
        kept |= {prediction.tile_id: prediction for prediction in made}
    return [kept[tile] for tile in tiles]


def store_prediction(
    tile: Tile,
    model_version_id: int,
    detections: Sequence[DetectedInstance],
    *,
    embedding: ArrayLike,
    uncertainty: float,
    parts: Mapping[str, float],
    seconds: float = 0.0,
) -> Prediction:
    """:func:`store_predictions` for one tile."""
    said = TilePrediction(tile, detections, embedding, uncertainty, parts, seconds)
    return store_predictions(model_version_id, [said])[0]


def embedding_of(stored: bytes | memoryview) -> NDArray[np.float32]:
    """The embedding kept in a prediction's row: float32 [D]."""
    return np.frombuffer(stored, dtype="<f4")


# `COPY` takes a third of the time that an INSERT of the same rows takes.
_COPY = """
    COPY labeling_predictedinstance (prediction_id, region_id, landform_class_id, rings, geometry, score, stage_scores,
        stage_boxes, mask_entropy, class_entropy) FROM STDIN
"""


def _write(rows: Sequence[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row(row)


def _instances(
    prediction: Prediction, detections: Sequence[DetectedInstance], classes: Mapping[str, LandformClass]
) -> Iterator[tuple[Any, ...]]:
    """Rows of a tile's instances, for `_COPY`."""
    best_first = sorted(detections, key=lambda one: -one.score)
    shapes = _shapes(prediction.tile, best_first)
    geometries = shapely.set_srid([shape.geometry if shape else None for shape in shapes], 4326)
    encoded = shapely.to_wkb(geometries, hex=True, include_srid=True) if shapes else []
    for number, (found, shape, geometry) in enumerate(zip(best_first, shapes, encoded, strict=True)):
        if shape is None:
            continue
        scores, boxes = np.asarray(found.stage_scores, float), np.asarray(found.stage_boxes, float)
        if scores.shape != (STAGES,) or boxes.shape != (STAGES, 4):
            raise PredictionError(
                f"An instance on tile {prediction.tile.key} came with stage scores {scores.shape} and boxes "
                f"{boxes.shape}; the model must be a cascade of {STAGES} stages."
            )
        yield (
            prediction.pk,
            f"p{prediction.pk:x}-{number}",
            classes[found.class_name].pk,
            json.dumps(shape.rings),
            geometry,
            float(np.clip(found.score, 0.0, 1.0)),
            scores.tolist(),
            json.dumps(np.round(boxes, _DECIMALS).tolist()),
            float(found.mask_entropy),
            float(found.class_entropy),
        )


def _classes(detections: Sequence[DetectedInstance]) -> dict[str, LandformClass]:
    names = {found.class_name for found in detections}
    known = {row.name: row for row in LandformClass.objects.filter(name__in=names)}
    if missing := sorted(names - set(known)):
        raise PredictionError(
            f"The model predicts the class `{missing[0]}`, which is not a landform class here: add it, or use a model "
            "trained on this campaign's classes."
        )
    return known


def _shapes(tile: Tile, detections: Sequence[DetectedInstance]) -> list[_Shape | None]:
    """Rings and geographic outline of each instance; None where nothing with an area is left."""
    outlines = _outlines(tile, detections)
    placed = iter(to_geographic_all(tile, [outline for outline in outlines if outline]))
    shapes: list[_Shape | None] = []
    for found, outline in zip(detections, outlines, strict=True):
        # PredictedInstance.geometry holds one polygon: at the antimeridian the larger half. The rings are whole.
        geometry = next(placed) if outline else None
        if geometry is not None and not (isinstance(geometry, Polygon) and geometry.is_valid and geometry.area > 0):
            geometry = _largest(geometry)
            if geometry is not None and not geometry.is_valid:
                geometry = _largest(shapely.make_valid(geometry))
        if outline and geometry is None:
            log.warning("predicted outline dropped: no area on the globe", tile=tile.key, score=float(found.score))
        shapes.append(_Shape([ring.tolist() for ring in outline], geometry) if geometry is not None else None)
    return shapes


def _outlines(tile: Tile, detections: Sequence[DetectedInstance]) -> list[list[NDArray[np.float64]]]:
    """Closed rings of each instance in tile pixels, exterior first; none where nothing with an area is left."""
    vertices, rings, polygons = ragged([_usable_rings(found) for found in detections])
    vertices = np.round(vertices, _DECIMALS)
    shapes = shapely.from_ragged_array(GeometryType.POLYGON, vertices, (rings, polygons))
    sound = shapely.is_valid(shapes) & (shapely.area(shapes) > 0)
    outlines = []
    for index, shape in enumerate(shapes):
        if sound[index]:
            spans = (slice(*rings[ring : ring + 2]) for ring in range(*polygons[index : index + 2]))
            outlines.append([vertices[span] for span in spans])
        else:
            repaired = _repaired(tile, shape)
            lines = (repaired.exterior, *repaired.interiors) if repaired is not None else ()
            outlines.append([shapely.get_coordinates(line) for line in lines])
    return outlines


def _usable_rings(found: DetectedInstance) -> list[NDArray[np.float64]]:
    """Those of three vertices or more; without its exterior an outline has none."""
    rings = [np.asarray(ring, dtype=float) for ring in found.rings]
    usable = [ring.ndim == 2 and len(ring) >= 3 for ring in rings]
    return [ring for ring, use in zip(rings, usable, strict=True) if use] if any(usable[:1]) else []


def _repaired(tile: Tile, polygon: Polygon) -> Polygon | None:
    repaired = _largest(shapely.make_valid(polygon))
    log.warning(
        "predicted outline repaired" if repaired is not None else "predicted outline dropped: it has no area",
        tile=tile.key,
        area_before_px=round(float(polygon.area), 2),
        area_px=round(float(repaired.area), 2) if repaired is not None else 0.0,
    )
    return repaired


def _largest(shape: Any) -> Polygon | None:
    """The largest polygon of whatever geometry."""
    parts = [part for part in shapely.get_parts(shapely.get_parts(shape)) if isinstance(part, Polygon)]
    largest = max(parts, key=lambda part: part.area, default=None)
    return largest if largest is not None and largest.area > 0 else None
