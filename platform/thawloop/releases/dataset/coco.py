"""Labels of one tile as COCO annotations in its pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

# The GeoAI RTS challenge drops instances below this.
MIN_AREA_PX = 10.0
DECIMALS = 3


@dataclass(frozen=True)
class TileLabel:
    """A label as it meets a tile.

    Attributes:
        shape: In tile pixels, not clipped.
        category: 1-based position of its class in the dataset's classes.
        label, revision: Which label, and which of its revisions (number).
        area_m2: Geodesic area of the whole label.
        ignored: Neither learnt nor counted here (`releases.separation`).
    """

    shape: BaseGeometry
    category: int
    label: str
    revision: int
    area_m2: float
    ignored: bool = False


def annotation_of(label: TileLabel, *, size: int) -> dict[str, Any] | None:
    """The COCO annotation of a label on a tile of `size` pixels, without ids; None where they only touch.

    Polygons where there are no holes, else uncompressed RLE, which COCO's own tools read. Fragments below 10 px are
    kept but flagged `ignore`; labels that are ignored here also `iscrowd`, which everybody's COCO tools pass over.
    """
    polygons = clip(label.shape, size)
    if not polygons:
        return None
    whole = label.shape.area
    if any(polygon.interiors for polygon in polygons):
        mask = mask_of(polygons, size)
        segmentation: Any = encode_rle(mask)
        area = float(mask.sum())
    else:
        segmentation = [_ring(polygon) for polygon in polygons]
        area = float(sum(polygon.area for polygon in polygons))
    west, north, east, south = MultiPolygon(polygons).bounds
    return {
        "category_id": label.category,
        "segmentation": segmentation,
        "bbox": [round(value, DECIMALS) for value in (west, north, east - west, south - north)],
        "area": round(area, DECIMALS),
        "iscrowd": int(label.ignored),
        "ignore": int(label.ignored or area < MIN_AREA_PX),
        "label": label.label,
        "revision": label.revision,
        "area_m2": round(label.area_m2, 2),
        "fraction": round(min(1.0, sum(p.area for p in polygons) / whole), 6) if whole > 0 else 0.0,
    }


def clip(shape: BaseGeometry, size: int) -> list[Polygon]:
    """The polygons of a shape inside a tile, rounded to a thousandth of a pixel and still valid."""
    if not shape.is_valid:
        shape = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    inside = shapely.intersection(shape, box(0, 0, size, size))
    parts = shapely.get_parts(shapely.get_parts(shapely.set_precision(inside, 10**-DECIMALS)))
    return [part for part in parts if isinstance(part, Polygon) and part.area > 0]


def mask_of(polygons: list[Polygon], size: int) -> NDArray[np.bool_]:
    """Pixels [size, size] whose centres lie in the polygons, holes left out."""
    return rasterize(polygons, out_shape=(size, size), fill=0, default_value=1, dtype="uint8").astype(bool)


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's run lengths of a mask [H, W]: down the columns, starting with zeros."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges, [flat.size]])
    counts = np.diff(starts).tolist()
    if flat.size and flat[0]:
        counts = [0, *counts]
    return {"size": list(mask.shape), "counts": counts}


def _ring(polygon: Polygon) -> list[float]:
    points = shapely.get_coordinates(polygon.exterior)[:-1]
    return points.round(DECIMALS).ravel().tolist()  # type: ignore[no-any-return]
