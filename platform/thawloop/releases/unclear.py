"""Where features of a label file could not be used: a tile there is no true negative, although the file covers it."""

from collections.abc import Iterable

import shapely
from shapely.geometry import MultiPolygon, box

from thawloop.catalog.vectors.projection import polygons_of
from thawloop.catalog.vectors.reading import Feature
from thawloop.catalog.wrapping import wrap_longitudes

# A repair that changes the area by more was a guess, as with what annotators draw.
MAX_REPAIR_CHANGE = 0.1


def was_lost(feature: Feature) -> bool:
    """Whether a refused feature may have stood for something; one without geometry says nothing of a place."""
    return feature.place is not None or feature.has_polygon


def is_guess(feature: Feature) -> bool:
    """Whether the repair of a feature may not be what was meant."""
    return abs(feature.area_change) > MAX_REPAIR_CHANGE


def unclear_ground(lost: Iterable[Feature], coverage: MultiPolygon | None) -> MultiPolygon | None:
    """The part of a coverage about which a file makes no statement (EPSG:4326); None if it makes one about all.

    Args:
        lost: Its features that were refused, or whose repair was a guess. One whose place is unknown may
            lie anywhere, so that the file then makes no statement about any tile.
        coverage: Where the file is said to be exhaustive.
    """
    if coverage is None:
        return None
    places = []
    for feature in lost:
        if feature.polygons is not None:
            places.append(feature.polygons)
        elif feature.place is not None:
            places.append(wrap_longitudes(box(*feature.place), jumps=False))
        else:
            return coverage
    return MultiPolygon(polygons_of(shapely.union_all(places))) if places else None
