"""Which fusion strategy and which training recipe is better on one's own data: measured, over seeds."""

from ml_backend.detector.comparison.compare import Comparison, compare
from ml_backend.detector.comparison.plan import RECIPES, ComparisonConfig

__all__ = ["RECIPES", "Comparison", "ComparisonConfig", "compare"]
