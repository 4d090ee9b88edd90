"""Whether a polygon of a label file can be a landform, by its size and place."""

import math
from dataclasses import dataclass
from typing import Self

import shapely
from django.conf import settings
from shapely.geometry import MultiPolygon, box

from thawloop.catalog.geometry import geodesic_area
from thawloop.catalog.vectors.projection import polygons_of
from thawloop.releases.study_area import StudyArea

EARTH_RADIUS_KM = 6371.0
# A landform that reaches into the regions may be larger than they are, but not by so much.
TIMES_THE_REGIONS = 10


@dataclass(frozen=True)
class Plausibility:
    """What a landform may be like.

    Attributes:
        max_area: Square kilometres, anywhere.
        because: Where that bound comes from, completing "more than …".
        near_regions: Square kilometres, of what meets the campaign's regions.
    """

    max_area: float
    because: str
    near_regions: float

    @classmethod
    def of(cls, area: StudyArea, max_area: float | None) -> Self:
        """The bound somebody named; else the installation's, and one that follows from the campaign's regions."""
        if max_area is not None:
            return cls(max_area, f"the {max_area:,g} km² allowed", max_area)
        bound = settings.THAWLOOP_MAX_LANDFORM_KM2
        # Quarter by quarter: an edge along a parallel around the whole globe has no length on the ellipsoid.
        quarters = (
            shapely.intersection(area.everything, box(west, -90, west + 90, 90)) for west in range(-180, 180, 90)
        )
        mapped = sum(geodesic_area(part) for quarter in quarters for part in polygons_of(quarter)) / 1e6
        return cls(bound, f"the {bound:,g} km² that one landform may", min(bound, TIMES_THE_REGIONS * mapped))

    def doubt(self, polygons: MultiPolygon, *, meets_regions: bool) -> str:
        """Why these polygons cannot be a landform, completing "feature 7 …"; empty if they can."""
        west, south, east, north = polygons.bounds
        if north >= 90 or south <= -90:
            return "encloses a pole, which no landform does"
        # A landform lies well within its box: only of the largest the area has to be known exactly.
        sines = math.sin(math.radians(north)) - math.sin(math.radians(south))
        if EARTH_RADIUS_KM**2 * math.radians(east - west) * sines * 1.01 <= self.near_regions:
            return ""
        area = geodesic_area(polygons) / 1e6
        because = self.because if area > self.max_area else f"{TIMES_THE_REGIONS} times all regions of the campaign"
        if area <= (self.near_regions if meets_regions else self.max_area):
            return ""
        return f"covers {area:,.4g} km², more than {because}: leave it out, or allow it with --max-area KM2"
