"""Whether a polygon of a label file can be a landform at all."""

import math
from dataclasses import dataclass
from typing import Self

from django.conf import settings
from shapely.geometry import MultiPolygon

from thawloop.catalog.geometry import geodesic_area
from thawloop.releases.study_area import StudyArea

EARTH_RADIUS_KM = 6371.0


@dataclass(frozen=True)
class Plausibility:
    """What a landform may be like.

    Attributes:
        max_area: Square kilometres.
        because: Where that bound comes from, completing "more than …".
    """

    max_area: float
    because: str

    @classmethod
    def of(cls, area: StudyArea, max_area: float | None) -> Self:
        """The bound somebody named; else the installation's, and no more than all that the campaign maps."""
        if max_area is not None:
            return cls(max_area, f"the {max_area:,g} km² allowed")
        mapped = geodesic_area(area.everything) / 1e6
        if mapped < settings.THAWLOOP_MAX_LANDFORM_KM2:
            return cls(mapped, f"all regions of the campaign together ({mapped:,.3g} km²)")
        bound = settings.THAWLOOP_MAX_LANDFORM_KM2
        return cls(bound, f"the {bound:,g} km² that one landform may")

    def doubt(self, polygons: MultiPolygon) -> str:
        """Why these polygons are no landform, completing "feature 7 …"; empty if nothing speaks against them."""
        west, south, east, north = polygons.bounds
        if north >= 90 or south <= -90:
            return "goes around a pole: no landform does"
        # A landform lies well within its box: only of the largest the area has to be known exactly.
        sines = math.sin(math.radians(north)) - math.sin(math.radians(south))
        if EARTH_RADIUS_KM**2 * math.radians(east - west) * sines * 1.01 <= self.max_area:
            return ""
        area = geodesic_area(polygons) / 1e6
        if area <= self.max_area:
            return ""
        return f"covers {area:,.4g} km², more than {self.because}: leave it out, or allow it with --max-area KM2"
