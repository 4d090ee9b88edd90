"""Coordinates that wrap around after a turn around the globe: degrees, and the metres of cylindrical projections.

A raster in such a CRS may extend past the place where x wraps around (170 to 190 degrees, Mercator beyond 20,037 km),
and it may end where its neighbour begins (at ±180). So what lies on it is looked for at x, and at x one turn away.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

_LATITUDES = (10.0, 50.0)
# Probing in whole degrees finds the middle of what a projection returns to half of one; that is exact enough here.
_PROBE = np.arange(-180.0, 180.0)


@dataclass(frozen=True)
class Turn:
    """How x repeats in a CRS.

    length: x units in 360 degrees of longitude.
    middle: PROJ returns x within half a turn of it, to a degree.
    """

    length: float
    middle: float

    def near(self, x: NDArray[np.float64], place: float) -> NDArray[np.float64]:
        """The same longitudes, counted so that they are within half a turn of a place."""
        nearer: NDArray[np.float64] = x - self.length * np.round((x - place) / self.length)
        return nearer


def turn_of(crs: CRS) -> Turn | None:
    """How x repeats in a CRS, None where it does not: all but geographic CRSs and cylindrical projections."""
    return _turn_of(crs.to_wkt())


@lru_cache(maxsize=256)
def _turn_of(wkt: str) -> Turn | None:
    crs = CRS.from_wkt(wkt)
    if crs.is_geographic:
        return Turn(2 * np.pi / crs.axis_info[0].unit_conversion_factor, 0.0)
    if not crs.is_projected or crs.geodetic_crs is None:
        return None
    try:
        move = Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
        rows = [move.transform(_PROBE, np.full_like(_PROBE, latitude)) for latitude in _LATITUDES]
    except ProjError:
        return None
    x, y = (np.array([row[i] for row in rows]) for i in (0, 1))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    step = float(np.median(np.diff(x[0])))
    # One step may jump back to the beginning, another be cut by it; the rest are alike at every latitude.
    alike = np.isclose(np.diff(x), step, rtol=1e-6, atol=0).sum(axis=1)
    if step <= 0 or alike.min() < len(_PROBE) - 3 or np.ptp(y, axis=1).max() > abs(step) * 1e-6:
        return None
    return Turn(360 * step, float((x.min() + x.max()) / 2))
