"""Calibration: the error that scores have, and the temperature that repairs them."""

import numpy as np
import pytest

from ml_backend.detector.calibration import Calibration, scaled
from ml_backend.detector.evaluation.reliability import fit_temperature, reliability


def outcomes(temperature: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are too sure by a known temperature."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.02, 0.98, n)
    return scores, rng.random(n) < scaled(scores, temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    scores, correct = outcomes(temperature)
    assert fit_temperature(scores, correct) == pytest.approx(temperature, rel=0.06)


def test_scaling_repairs_scores_that_are_too_sure() -> None:
    scores, correct = outcomes(2.5)
    fitted = fit_temperature(scores, correct)
    assert reliability(scores, correct).error > 0.08
    assert reliability(scaled(scores, fitted), correct).error < 0.02


def test_the_error_is_the_mean_gap_over_15_bins() -> None:
    scores = np.array([0.95, 0.95, 0.95, 0.95, 0.1, 1.0])
    correct = np.array([True, True, False, False, False, True])
    told = reliability(scores, correct)
    assert len(told.count) == 15
    assert (told.count[14], told.count[1]) == (5, 1)
    assert told.error == pytest.approx((5 * abs(0.96 - 0.6) + 1 * 0.1) / 6)


def test_without_both_outcomes_there_is_no_temperature() -> None:
    assert fit_temperature(np.array([0.5, 0.9]), np.array([True, True])) is None
    assert fit_temperature(np.array([0.5]), np.array([False])) is None
    assert fit_temperature(np.zeros(0), np.zeros(0, bool)) is None
    assert reliability(np.zeros(0), np.zeros(0, bool)).error is None


def test_certain_scores_stay_finite() -> None:
    assert np.isfinite(scaled(np.array([0.0, 1.0]), 0.1)).all()
    assert fit_temperature(np.array([0.0, 1.0, 1.0]), np.array([True, True, False])) is not None


def test_a_card_without_calibration_claims_nothing() -> None:
    assert Calibration.from_metrics({}).probability(0.7) is None
    assert Calibration.from_metrics({"best_score_threshold": 0.0}).score_threshold is None
    assert Calibration(temperature=1.0).probability(0.7) == pytest.approx(0.7)
    assert Calibration(temperature=2.0).probability(0.9) == pytest.approx(0.75)
