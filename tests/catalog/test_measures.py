"""Areas and perimeters of many polygons at once: what geodesics say."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Point, box

from thawloop.catalog.geometry import WGS84, geodesic_area
from thawloop.catalog.measures import measures


@given(
    longitude=st.floats(-180, 178),
    latitude=st.floats(-89, 88.9),
    size=st.sampled_from([1e-4, 1e-3, 0.01, 0.04, 1.0]),
    holes=st.booleans(),
)
def test_they_are_those_along_geodesics(longitude: float, latitude: float, size: float, holes: bool) -> None:
    blob = shapely.affinity.scale(Point(longitude + size, latitude + size / 2).buffer(size / 2), 1.5, 1)
    shape = blob.difference(Point(longitude + size, latitude + size / 2).buffer(size / 5)) if holes else blob
    two = MultiPolygon([shape, box(longitude, latitude, longitude + size / 10, latitude + size / 10)])

    area, perimeter = measures(np.array([two, MultiPolygon([box(0, 70, 0.01, 70.01)]), two], dtype=object))

    assert area[[0, 2]] == pytest.approx([geodesic_area(two)] * 2, rel=1e-6, abs=0.01)
    assert perimeter[[0, 2]] == pytest.approx([abs(WGS84.geometry_length(two))] * 2, rel=1e-6, abs=1e-3)


def test_nothing_measures_nothing() -> None:
    area, perimeter = measures(np.array([], dtype=object))
    assert len(area) == len(perimeter) == 0
