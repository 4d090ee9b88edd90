"""Where a campaign works, and which part of it an import is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import nearest_points

from thawloop.campaigns.models import Campaign, CampaignRegion, Split
from thawloop.catalog.geometry import WGS84, to_shapely
from thawloop.catalog.vectors.projection import polygons_of
from thawloop.releases.errors import LabelFileRefused


@dataclass(frozen=True)
class StudyArea:
    """All regions of a campaign, and the ones chosen among them (EPSG:4326)."""

    everything: BaseGeometry
    chosen: MultiPolygon
    names: str
    is_part: bool

    @classmethod
    def of(
        cls, campaign: Campaign, *, splits: Sequence[str] | None = None, regions: Sequence[str] | None = None
    ) -> Self:
        """The campaign's regions, narrowed to splits and names.

        Raises:
            LabelFileRefused: The campaign has no regions, or none of those named.
        """
        rows = list(CampaignRegion.objects.filter(campaign=campaign).select_related("region"))
        if not rows:
            raise LabelFileRefused(f"Campaign {campaign.name} has no region: add one before importing labels.")
        for split in splits or ():
            if split not in Split.values:
                raise LabelFileRefused(f"Split `{split}` is unknown: use {', '.join(Split.values)}.")
        if unknown := sorted(set(regions or ()) - {row.region.name for row in rows}):
            known = ", ".join(sorted(row.region.name for row in rows))
            raise LabelFileRefused(f"Campaign {campaign.name} has no region `{unknown[0]}`: it has {known}.")
        chosen = [
            row for row in rows if (not splits or row.split in splits) and (not regions or row.region.name in regions)
        ]
        if not chosen:
            raise LabelFileRefused(f"Campaign {campaign.name} has no region of split {', '.join(splits or ())}.")
        everything = shapely.union_all([_shape(row) for row in rows])
        shapely.prepare(everything)
        part = MultiPolygon(polygons_of(shapely.union_all([_shape(row) for row in chosen])))
        shapely.prepare(part)
        return cls(everything, part, ", ".join(sorted(row.region.name for row in chosen)), bool(splits or regions))

    def meets(self, shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
        """Which labels [N] touch any of the campaign's regions."""
        return np.asarray(shapely.intersects(self.everything, shapes))

    def wants(self, shapes: NDArray[np.object_], *, exhaustive: bool) -> NDArray[np.bool_]:
        """Which labels [N] an import takes: all, or those that lie in the regions chosen.

        A label on the border belongs where its representative point is; but where an import is `exhaustive`, every
        label that reaches into the regions is part of what is known there.
        """
        if not self.is_part:
            return np.ones(len(shapes), bool)
        if exhaustive:
            return np.asarray(shapely.relate_pattern(self.chosen, shapes, "T********"))
        return np.asarray(shapely.intersects(self.chosen, shapely.point_on_surface(shapes)))

    def elsewhere(self, name: str, bounds: tuple[float, float, float, float]) -> str:
        """The sentence for a file that meets no region: how far away, and what is probably wrong."""
        here, there = nearest_points(self.everything, box(*bounds))
        _, _, metres = WGS84.inv(here.x, here.y, there.x, there.y)
        middle = box(*bounds).centroid
        text = (
            f"None of {name}'s polygons meets a region of this campaign: the file lies around "
            f"{middle.y:.2f}, {middle.x:.2f} (latitude, longitude)"
            + (f", {metres / 1000:,.0f} km away" if metres >= 1000 else "")
        )
        west, south, east, north = bounds
        if abs(west) <= 90 and abs(east) <= 90 and self.everything.intersects(box(south, west, north, east)):
            return text + "; its latitude and longitude are probably swapped: export it again with longitude first."
        return text + "; if that is not where it should be, name its coordinate system with --crs EPSG:CODE."


def _shape(row: CampaignRegion) -> BaseGeometry:
    return to_shapely(row.region.geometry)
