"""What a training gives back, and what it writes about itself into its checkpoint's card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        checkpoint: folder of the published checkpoint.
        metrics: of the validation split (:meth:`Evaluation.summary`); empty when there is none.
        seconds: of training and evaluation, over all resumed parts.
        peak_memory_mb: of the GPU during this training; on a CPU, the most that the process has needed so far.
        iterations: optimizer steps done.
    """

    checkpoint: Path
    metrics: dict[str, Any]
    seconds: float
    peak_memory_mb: float
    iterations: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "checkpoint": str(self.checkpoint)}
