"""Shapes on a tile ↔ Label Studio's results: polygons in percent, brush masks with holes; findings as sentences.

What is wrong in a submission is either mended or it is a problem. Mended is only what cannot have been meant otherwise:
an outline left open is closed, a small crossing of it is resolved, what lies outside the tile is cut off, specks are
left out. Everything else (a figure-eight outline, a shape without a class, a verdict beside shapes, anything that
cannot be read) is a problem, and a submission with a problem makes no statement about its tile.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon, box, shape

from labeling.labelstudio.config import BRUSH, POLYGONS, VERDICT, brush_label, nothing_there
from labeling.labelstudio.rle import BadEncoding, decode_mask, encode_mask
from labeling.submission import NO_STATEMENT, Shape, SubmissionContent
from thawloop.catalog.vectors.mending import Mender, TooCostly

Json = dict[str, Any]
Ring = Sequence[Sequence[float]]

MIN_AREA = 2.0  # square tile pixels; smaller parts are accidental clicks
MAX_REGIONS = 2_000
MAX_POINTS = 20_000
MAX_MASK_EDGES = 200_000  # between pixels inside and outside a brush mask: more is noise, not a landform
MAX_REPAIR_SECONDS = 30  # of the processor, for all outlines of a submission together
MAX_REPAIR_CHANGE = 0.1  # a repaired outline may differ so much, relative to its area


@dataclass(frozen=True)
class ShownInstance:
    """A shape to be shown: rings in tile pixels, the first exterior, the others holes."""

    region: str
    class_name: str
    rings: Sequence[Ring]
    score: float | None = None


def write_result(instances: Iterable[ShownInstance], *, tile_size: int, picture: str, picture_size: int) -> list[Json]:
    """Turn shapes into a Label Studio result.

    Args:
        instances: What to show. Without holes they become polygons, with holes brush masks.
        tile_size: Pixels of the tile's side.
        picture: Name of the Image tag that people draw on.
        picture_size: Pixels of the side of the picture that people see.
    """
    return [_write(instance, tile_size, picture, picture_size) for instance in instances]


def read_result(result: Any, *, tile_size: int, classes: Collection[str]) -> SubmissionContent:
    """Interpret an annotation's result; never raises for bad content.

    Args:
        result: The `result` of an annotation: a list of regions.
        tile_size: Pixels of the tile's side.
        classes: The names of the campaign's landform classes.
    """
    content = SubmissionContent()
    if not isinstance(result, list):
        content.problems.append("The result is not a list of regions.")
        return content
    if len(result) > MAX_REGIONS:
        content.problems.append(f"Only the first {MAX_REGIONS} of {len(result)} regions were read.")
    seen: set[str] = set()
    mender = Mender(MAX_REPAIR_SECONDS)
    for number, item in enumerate(result[:MAX_REGIONS], start=1):
        name = f"Region {number} ({_region_id(item, number)})"
        try:
            mended = _read(item, number, tile_size, classes, seen, content, mender)
        except _Unusable as problem:
            content.problems.append(f"{name}: {problem}.")
        else:
            content.mended += [f"{name}: {what}." for what in mended]
    if content.verdict and content.shapes:
        # Pre-annotations are copied into the submission: shapes that are left beside a verdict may be the model's.
        content.problems.append(
            f"The verdict is {content.verdict[:50]!r}, but {len(content.shapes)} shapes are drawn: "
            "remove the verdict or the shapes."
        )
    return content


def shown_union(instances: Iterable[ShownInstance], *, tile_size: int, picture_size: int) -> shapely.Geometry:
    """What people see of shapes that `write_result` wrote, as one geometry in tile pixels."""
    scale = Affine.scale(tile_size / picture_size)
    shown = []
    for instance in instances:
        if len(instance.rings) == 1:
            outline = Mender().repair(Polygon(instance.rings[0]))
        else:
            outline = mask_geometry(_mask(instance, tile_size, picture_size), scale)
        shown.append(shapely.intersection(outline, box(0, 0, tile_size, tile_size)))
    return shapely.union_all(shown)


def iou(first: shapely.Geometry, second: shapely.Geometry) -> float:
    """Intersection over union of two geometries in one CRS; 1 if both are empty."""
    union = shapely.union(first, second).area
    return float(shapely.intersection(first, second).area / union) if union else 1.0


class _Unusable(Exception):
    """A region that cannot become a label; the message completes "Region N: …"."""


def _write(instance: ShownInstance, tile_size: int, picture: str, picture_size: int) -> Json:
    region: Json = {
        "id": instance.region,
        "to_name": picture,
        "original_width": picture_size,
        "original_height": picture_size,
        "image_rotation": 0,
    }
    if instance.score is not None and math.isfinite(instance.score):
        region["score"] = round(float(instance.score), 4)
    if len(instance.rings) == 1:
        points = [[round(100 * x / tile_size, 6), round(100 * y / tile_size, 6)] for x, y in _open(instance.rings[0])]
        value: Json = {"points": points, "closed": True, "polygonlabels": [instance.class_name]}
        return region | {"from_name": POLYGONS, "type": "polygonlabels", "value": value}
    rle = encode_mask(_mask(instance, tile_size, picture_size))
    value = {"format": "rle", "rle": rle, "brushlabels": [brush_label(instance.class_name)]}
    return region | {"from_name": BRUSH, "type": "brushlabels", "value": value}


def _mask(instance: ShownInstance, tile_size: int, picture_size: int) -> NDArray[np.bool_]:
    scaled = shapely.transform(Polygon(instance.rings[0], instance.rings[1:]), lambda xy: xy * picture_size / tile_size)
    return rasterio.features.rasterize([scaled], out_shape=(picture_size, picture_size)).astype(bool)


def _open(ring: Ring) -> list[Sequence[float]]:
    """A ring without the repeated last point."""
    points = list(ring)
    return points[:-1] if len(points) > 1 and tuple(points[0]) == tuple(points[-1]) else points


def _read(
    item: Any,
    number: int,
    tile_size: int,
    classes: Collection[str],
    seen: set[str],
    content: SubmissionContent,
    mender: Mender,
) -> list[str]:
    """Add what a region says to the content; returns what was mended in it."""
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "relation":  # an arrow between two regions: says nothing about the tile
        return []
    if not isinstance(item, dict) or not isinstance(item.get("value"), dict):
        raise _Unusable("it is not a region of Label Studio")
    value = item["value"]
    if kind == "choices":
        _read_verdict(item, classes, content)
        return []
    if kind == "textarea":  # a comment: kept with the annotation's result
        return []
    if item.get("image_rotation") not in (None, 0):
        raise _Unusable("it was drawn on a rotated picture, whose coordinates are not ours")
    mended: list[str] = []
    if kind == "polygonlabels":
        class_name = _class(value.get("polygonlabels"), {name: name for name in classes})
        parts = _polygon(value, tile_size, mended, mender)
    elif kind == "brushlabels":
        class_name = _class(value.get("brushlabels"), {brush_label(name): name for name in classes})
        parts = _brush(item, value, tile_size)
    else:
        raise _Unusable(f"it is of the unknown kind {str(kind)[:50]!r}; draw polygons or use the brush")
    geometry = _kept(parts, tile_size, mended)
    region = _region_id(item, number)
    if region in seen:
        region = f"{region}~{number}"
    seen.add(region)
    content.shapes.append(Shape(region, class_name, geometry))
    return mended


def _read_verdict(item: Json, classes: Collection[str], content: SubmissionContent) -> None:
    choices = item["value"].get("choices")
    if choices == []:  # taken back
        return
    verdict = _first_text(choices)
    if item.get("from_name") != VERDICT or not verdict or len(choices) != 1:
        raise _Unusable("it is a verdict that cannot be read; choose one again")
    # A campaign that got its second class later has verdicts from when it had one.
    known = {nothing_there(sorted(classes)), *(nothing_there([name]) for name in classes), *NO_STATEMENT}
    if verdict not in known:
        raise _Unusable(f"its verdict {verdict[:50]!r} is not one of the campaign's; choose one again")
    if content.verdict not in ("", verdict):
        raise _Unusable(f"its verdict {verdict!r} contradicts {content.verdict!r}; choose one of them")
    content.verdict = verdict


def _region_id(item: Any, number: int) -> str:
    identifier = item.get("id") if isinstance(item, dict) else None
    return identifier[:40] if isinstance(identifier, str) and identifier else f"#{number}"


def _first_text(value: Any) -> str:
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    return texts[0] if texts else ""


def _class(labels: Any, known: dict[str, str]) -> str:
    label = _first_text(labels)
    if not label:
        raise _Unusable("it has no class; choose one for it")
    if len(labels) > 1:
        raise _Unusable("it has several classes; choose one for it")
    if label not in known:
        raise _Unusable(f"its class {label[:50]!r} is not one of the campaign's ({', '.join(sorted(known))})")
    return known[label]


def _polygon(value: Json, tile_size: int, mended: list[str], mender: Mender) -> shapely.Geometry:
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3:
        raise _Unusable("its outline has fewer than three points")
    if len(points) > MAX_POINTS:
        raise _Unusable(f"its outline has {len(points):,} points, more than {MAX_POINTS:,}")
    pairs = all(
        isinstance(point, list | tuple) and len(point) == 2 and all(_is_number(number) for number in point)
        for point in points
    )
    if not pairs:
        raise _Unusable("its outline holds something that is not a point")
    ring = np.asarray(points, dtype=float) * tile_size / 100
    if value.get("closed") is False:
        mended.append("its outline was left open and has been closed")
    return _repaired(Polygon(ring), mended, mender)


def _is_number(value: Any) -> bool:
    # A picture is 100 percent wide: points far outside are an error, not an outline.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1000


def _repaired(polygon: Polygon, mended: list[str], mender: Mender) -> shapely.Geometry:
    try:
        repaired = mender.repair(polygon)
    except TooCostly as error:
        raise _Unusable(f"its outline crosses itself too often and {error}; draw it again") from error
    if repaired is polygon:
        return polygon
    if abs(repaired.area - polygon.area) > MAX_REPAIR_CHANGE * max(repaired.area, polygon.area):
        raise _Unusable("its outline crosses itself, so that its inside is unclear; draw it again")
    mended.append("a small crossing of its outline was resolved")
    return repaired


def _brush(item: Json, value: Json, tile_size: int) -> shapely.Geometry:
    height, width, rle = item.get("original_height"), item.get("original_width"), value.get("rle")
    if type(height) is not int or type(width) is not int or not isinstance(rle, list):
        raise _Unusable("its brush mask has no picture size or no content")
    try:
        mask = decode_mask(rle, height, width)
    except BadEncoding as problem:
        raise _Unusable(f"its brush mask cannot be read: {problem}") from problem
    edges = np.count_nonzero(np.diff(mask, axis=0)) + np.count_nonzero(np.diff(mask, axis=1))
    if edges > MAX_MASK_EDGES:
        raise _Unusable("its brush mask is made of single pixels all over; paint it again")
    return mask_geometry(mask, Affine.scale(tile_size / width, tile_size / height))


def mask_geometry(mask: NDArray[np.bool_], transform: Affine) -> MultiPolygon:
    """The exact outline of a mask [H, W], along pixel edges and with holes."""
    traced = rasterio.features.shapes(mask.astype(np.uint8), mask=mask, connectivity=4, transform=transform)
    return MultiPolygon([shape(outline) for outline, _ in traced])


def _kept(geometry: shapely.Geometry, tile_size: int, mended: list[str]) -> MultiPolygon:
    """What of a geometry lies in the tile, as polygons, without specks."""
    clipped = shapely.intersection(geometry, box(0, 0, tile_size, tile_size))
    parts = [part for part in shapely.get_parts(clipped) if part.geom_type == "Polygon"]
    large = [part for part in parts if part.area >= MIN_AREA]
    if not large:
        raise _Unusable(f"nothing of it that is larger than {MIN_AREA:g} pixels lies in the tile")
    if geometry.area - clipped.area >= MIN_AREA:
        mended.append("what of it lay outside the tile was cut off")
    if len(large) < len(parts):
        mended.append(f"{len(parts) - len(large)} specks smaller than {MIN_AREA:g} pixels were left out")
    return MultiPolygon(large)
