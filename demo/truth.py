"""The true shapes that the simulated annotators work from."""

from collections.abc import Sequence
from pathlib import Path

import shapely
from shapely import MultiPolygon, Polygon

from demo.hands import SMALLEST_DRAWN, Outline
from thawloop.catalog.geometry import to_pixels
from thawloop.catalog.models import Tile
from thawloop.catalog.vectors.mending import Mender
from thawloop.catalog.vectors.reading import read_vector_file
from thawloop.core.errors import Refused
from thawloop.core.storage import checked_uri
from thawloop.setup.spec import LabelSpec


class Truth:
    """Polygons of label files, found by tile.

    Args:
        specs: Label files that are held back (`role = "simulate"`).

    Raises:
        Refused: A file cannot be read, or none holds a polygon.
    """

    def __init__(self, specs: Sequence[LabelSpec]) -> None:
        self._classes: list[str] = []
        shapes: list[MultiPolygon] = []
        for spec in specs:
            for path in spec.files:
                found = _read(str(path), spec)
                shapes += [shape for shape, _ in found]
                self._classes += [name for _, name in found]
        if not shapes:
            raise Refused("No label is held back to play the annotators: add a `[[labels]]` table of role `simulate`.")
        self._shapes = shapes
        self._tree = shapely.STRtree(shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def on(self, tile: Tile) -> list[Outline]:
        """The shapes on a tile, clipped to it, in its pixels."""
        size = tile.grid.tile_size
        frame = shapely.box(0, 0, size, size)
        outlines = []
        for index in self._tree.query(shapely.from_wkb(bytes(tile.geometry.wkb)).buffer(1e-4)):
            inside = Mender().repair(to_pixels(tile, self._shapes[index])).intersection(frame)
            parts = [part for part in shapely.get_parts(shapely.get_parts(inside)) if isinstance(part, Polygon)]
            name = self._classes[index]
            outlines += [Outline("", name, part) for part in parts if part.area >= SMALLEST_DRAWN]
        return outlines


def _read(path: str, spec: LabelSpec) -> list[tuple[MultiPolygon, str]]:
    source = read_vector_file(Path(checked_uri(path)), layer=spec.layer or None, crs=spec.crs or None)
    return [
        (feature.polygons, spec.landform_class or str(feature.properties.get(spec.class_field, "")))
        for feature in source.features
        if feature.polygons is not None
    ]
