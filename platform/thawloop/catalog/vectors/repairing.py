"""Operations on one geometry whose cost is not known beforehand; run by the child, or here where it is small."""

from collections.abc import Callable
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

Operation = Callable[[BaseGeometry], tuple[BaseGeometry, dict[str, Any]]]


def repair(geometry: BaseGeometry) -> tuple[BaseGeometry, dict[str, Any]]:
    """Valid, its collapsed parts dropped."""
    return shapely.make_valid(geometry, method="structure", keep_collapsed=False), {}


def unite(geometry: BaseGeometry) -> tuple[BaseGeometry, dict[str, Any]]:
    """All parts as one area."""
    return shapely.union_all(shapely.get_parts(geometry)), {}


def examine(geometry: BaseGeometry) -> tuple[BaseGeometry, dict[str, Any]]:
    """`invalid`: why the geometry is not valid; empty if it is."""
    valid = bool(geometry.is_valid)
    return shapely.Point(), {"invalid": "" if valid else shapely.is_valid_reason(geometry)}


OPERATIONS: dict[str, Operation] = {"repair": repair, "unite": unite, "examine": examine}
