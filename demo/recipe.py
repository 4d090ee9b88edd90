"""What a generated dataset is made of: how much, how hard, and what is different where it is tested."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.dataset import SPLITS
from demo.painting import Conditions
from thawloop.core.errors import Refused

MODALITIES = ("rgb", "nir", "ndvi", "dem", "relative_elevation")
FROM_ELEVATION = ("dem", "relative_elevation")


@dataclass(frozen=True)
class Recipe:
    """What is generated.

    Attributes:
        seed: Of everything: the same recipe gives the same files.
        tiles: Per split.
        tile_size: Pixels; a tile is 320 m wide, so 64 px are 5 m each.
        modalities: The first is the anchor.
        missing_dem: Share of tiles that lack the modalities made from elevation.
        signal_split: Share of slumps whose upper half only elevation shows, and whose lower half only colour shows.
        dem_noise: Standard deviation of the elevation's error, metres.
        illumination_shift: How much lower, further west and weaker the sun is over the test split: 1 is from 32 to
            20 degrees, by 60 degrees, and by a fifth.
        season_shift: How much later in the year the test split is seen: 1 takes 0.25 of the vegetation's 0 to 1.
        dem_shift: How much worse the test split's elevation is: 1 adds 5 m of bias and 1 m of noise.
        noise: A modality whose pixels are replaced by noise of the same mean and deviation, in all splits; or empty.
    """

    seed: int = 0
    tiles: Mapping[str, int] = field(default_factory=lambda: {"train": 120, "val": 30, "test": 60})
    tile_size: int = 64
    modalities: tuple[str, ...] = ("rgb", "ndvi", "relative_elevation")
    missing_dem: float = 0.1
    signal_split: float = 0.3
    dem_noise: float = 0.2
    illumination_shift: float = 0.0
    season_shift: float = 0.0
    dem_shift: float = 0.0
    noise: str = ""

    def __post_init__(self) -> None:
        for split in SPLITS:
            if not 1 <= self.tiles.get(split, 0) <= 100_000:
                raise Refused(f"The {split} split needs 1 to 100,000 tiles, not {self.tiles.get(split, 0)}.")
        if not 32 <= self.tile_size <= 1024:
            raise Refused(f"Tiles of {self.tile_size} pixels cannot be made: choose 32 to 1024.")
        if unknown := [name for name in self.modalities if name not in MODALITIES]:
            raise Refused(f"There is no modality `{unknown[0]}` to generate: choose among {', '.join(MODALITIES)}.")
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise Refused("Name at least one modality, and each once.")
        if self.modalities[0] in FROM_ELEVATION and self.missing_dem:
            raise Refused(
                f"Tiles cannot lack the anchor: with `{self.modalities[0]}` as first modality, `missing_dem` must be 0."
            )
        if self.noise and self.noise not in self.modalities:
            raise Refused(f"`{self.noise}` cannot be noise: it is none of {', '.join(self.modalities)}.")
        for name in ("missing_dem", "signal_split"):
            if not 0 <= getattr(self, name) <= 1:
                raise Refused(f"{name} = {getattr(self, name)} is not a share: give a number from 0 to 1.")
        for name in ("dem_noise", "illumination_shift", "season_shift", "dem_shift"):
            if not 0 <= getattr(self, name) <= 3:
                raise Refused(f"{name} = {getattr(self, name)} is too little or too much: give a number from 0 to 3.")
        if self.seed < 0:
            raise Refused(f"The seed {self.seed} is negative: give 0 or more.")

    def conditions(self, split: str) -> Conditions:
        """Sun and season of a split."""
        if split != "test":
            return Conditions()
        low, late = self.illumination_shift, self.season_shift
        usual = Conditions()
        return Conditions(
            sun_azimuth=usual.sun_azimuth + 60 * low,
            sun_altitude=max(usual.sun_altitude - 12 * low, 5),
            brightness=max(1 - 0.2 * low, 0.3),
            season=-0.25 * late,
        )
