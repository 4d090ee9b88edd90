"""Count what happened to each feature of a label file, with the first of the noteworthy ones by name."""

from dataclasses import dataclass, field
from typing import Any

from shapely.geometry import MultiPolygon

from thawloop.catalog.vectors.reading import Feature

NAMED = 50


@dataclass
class Tally:
    """Counts over one file. `refusals` and `repairs` name at most the first 50.

    `lost` are the features that could not be used, or only after a guess: where they lie, nothing is said of tiles.
    """

    read: int
    created: int = 0
    duplicate: int = 0
    unchanged: int = 0
    repaired: int = 0
    refused: int = 0
    empty: int = 0
    held_back: int = 0
    outside: int = 0
    points: int = 0
    sound: int = 0
    refusals: list[dict[str, str]] = field(default_factory=list)
    repairs: list[dict[str, Any]] = field(default_factory=list)
    lost: list[Feature] = field(default_factory=list)
    bounds: tuple[float, float, float, float] | None = None

    def refuse(self, feature: str, reason: str, *, empty: bool = False, point: bool = False) -> None:
        """Count a feature that cannot become a label."""
        self.refused += 1
        self.empty += empty
        self.points += point
        if len(self.refusals) < NAMED:
            self.refusals.append({"feature": feature, "reason": reason})

    def repair(self, feature: str, what: str, area_change: float) -> None:
        """Count a geometry that was mended. `area_change`: area after / before - 1."""
        self.repaired += 1
        if len(self.repairs) < NAMED:
            self.repairs.append({"feature": feature, "what": what, "area_change": round(area_change, 6)})

    def extend(self, polygons: MultiPolygon) -> None:
        """Count a sound geometry and grow the file's bounds by it."""
        self.sound += 1
        west, south, east, north = polygons.bounds
        if self.bounds is not None:
            west, south = min(west, self.bounds[0]), min(south, self.bounds[1])
            east, north = max(east, self.bounds[2]), max(north, self.bounds[3])
        self.bounds = (west, south, east, north)

    def to_json(self) -> dict[str, Any]:
        """What `LabelImport.counts` keeps."""
        return {
            "read": self.read,
            "created": self.created,
            "duplicate": self.duplicate,
            "unchanged": self.unchanged,
            "repaired": self.repaired,
            "refused": self.refused,
            "empty": self.empty,
            "held_back": self.held_back,
            "outside": self.outside,
            "lost": len(self.lost),
            "refusals": self.refusals,
            "repairs": self.repairs,
        }
