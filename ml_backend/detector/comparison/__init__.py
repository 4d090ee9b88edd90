"""Comparing fusion strategies and training recipes on one's own data, over several seeds."""

from ml_backend.detector.comparison.compare import Comparison, compare
from ml_backend.detector.comparison.plan import RECIPES, ComparisonConfig

__all__ = ["RECIPES", "Comparison", "ComparisonConfig", "compare"]
