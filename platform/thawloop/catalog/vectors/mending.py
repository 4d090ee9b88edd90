"""Repair, unite and examine single geometries that come from outside, at a bounded cost."""

import math
from collections.abc import Iterable
from typing import Any

import shapely
from django.conf import settings
from shapely.geometry import GeometryCollection, MultiPolygon
from shapely.geometry.base import BaseGeometry

from thawloop.catalog.geometry import as_multipolygon
from thawloop.catalog.vectors.repairing import OPERATIONS
from thawloop.catalog.vectors.sandbox import Overrun, ask

# Repairing so many random vertices takes some hundredths of a second: not worth another process.
EASY_VERTICES = 64
# Looking whether so many are valid takes at most some tenths.
EASY_TO_EXAMINE = 5_000


class TooCostly(Exception):
    """A geometry needs more memory or time than it may; the message completes "the outline …"."""


class Mender:
    """Operations on geometries within a budget of processor time.

    Args:
        seconds: For all of them together; None: what one feature of a file may take.
    """

    def __init__(self, seconds: int | None = None) -> None:
        self._left: float = settings.THAWLOOP_VECTOR_FEATURE_SECONDS if seconds is None else seconds

    def repair(self, geometry: BaseGeometry) -> BaseGeometry:
        """The geometry, valid; itself if it was.

        Raises:
            TooCostly: That takes too much.
        """
        if not self.invalid_reason(geometry):
            return geometry
        return self._do("repair", geometry, EASY_VERTICES)[0]

    def unite(self, shapes: Iterable[BaseGeometry]) -> MultiPolygon:
        """The polygons of all shapes, valid by themselves, as one area.

        Raises:
            TooCostly: That takes too much.
        """
        parts = [part for shape in shapes for part in shapely.get_parts(shape)]
        return as_multipolygon(self._do("unite", GeometryCollection(parts), EASY_VERTICES)[0])

    def invalid_reason(self, geometry: BaseGeometry) -> str:
        """Why a geometry is not valid; empty if it is.

        Raises:
            TooCostly: That takes too much.
        """
        return str(self._do("examine", geometry, EASY_TO_EXAMINE)[1]["invalid"])

    def _do(self, operation: str, geometry: BaseGeometry, easy: int) -> tuple[BaseGeometry, dict[str, Any]]:
        if shapely.get_num_coordinates(geometry) <= easy:
            return OPERATIONS[operation](geometry)
        seconds = min(math.ceil(self._left), settings.THAWLOOP_VECTOR_FEATURE_SECONDS)
        if seconds <= 0:
            raise TooCostly("comes after others that took all the time there is")
        request = {"operation": operation, "seconds": seconds}
        try:
            [(facts, wkb)] = ask(request, shapely.to_wkb(geometry))
        except Overrun as overrun:
            self._left -= seconds
            raise TooCostly(str(overrun)) from overrun
        self._left -= facts["cost"]
        return shapely.from_wkb(wkb), facts
