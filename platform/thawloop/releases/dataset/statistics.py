"""Mean and standard deviation of every band over valid pixels, one chip at a time."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class BandStatistics:
    """Running statistics of one modality.

    Chips are merged by Chan, Golub & LeVeque (1979), so that millions of pixels lose no precision, in the order given,
    so that the same chips give the same digits.
    """

    bands: int
    pixels: int = 0
    mean: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.mean = np.zeros(self.bands)
        self.squares = np.zeros(self.bands)

    def add(self, array: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add a chip: array [C, H, W], valid [H, W]."""
        values = array[:, valid].astype(np.float64)
        count = values.shape[1]
        if count == 0:
            return
        mean = values.mean(axis=1)
        squares = ((values - mean[:, None]) ** 2).sum(axis=1)
        total = self.pixels + count
        shift = mean - self.mean
        self.mean += shift * (count / total)
        self.squares += squares + shift**2 * (self.pixels * count / total)
        self.pixels = total

    def summary(self, low: float, high: float) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per band.

        A modality without a valid pixel gets those of a uniform distribution over its range; a constant one a
        deviation above zero, because it is divided by.
        """
        span = high - low
        if self.pixels == 0:
            return [(low + high) / 2] * self.bands, [span / math.sqrt(12)] * self.bands
        deviation = np.maximum(np.sqrt(self.squares / self.pixels), 1e-6 * span)
        return [float(f"{value:.9g}") for value in self.mean], [float(f"{value:.9g}") for value in deviation]
