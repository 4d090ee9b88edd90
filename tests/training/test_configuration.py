"""Campaign settings: round trips, and refusals that name the field and the remedy."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.acquisition import STRATEGIES
from contracts.network import FUSIONS, SIZES
from thawloop.campaigns.settings import AcquisitionSettings, DetectorSettings, SettingsError

acquisition = st.builds(
    AcquisitionSettings,
    strategy=st.sampled_from(STRATEGIES),
    batch_size=st.integers(1, 1000),
    random_fraction=st.floats(0, 1),
    seed=st.integers(0, 2**40),
    initial_batch_size=st.integers(1, 1000),
    pool_factor=st.floats(1, 1000),
)
detector = st.builds(
    DetectorSettings,
    size=st.sampled_from(SIZES),
    fusion=st.sampled_from(FUSIONS),
    iterations=st.integers(1, 10**6),
    learning_rate=st.none() | st.floats(1e-6, 0.1),
    modality_dropout=st.floats(0, 0.99),
    seed=st.integers(0, 2**40),
)


@given(acquisition | detector)
def test_settings_survive_json(settings):
    assert type(settings).from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_a_modality_called_best_cannot_be_told_from_the_best_one():
    settings = DetectorSettings(anchor="best")
    settings.check_anchor(["rgb", "dem"])
    with pytest.raises(SettingsError, match="rename the modality"):
        settings.check_anchor(["rgb", "best"])


def test_what_is_missing_takes_its_default():
    assert AcquisitionSettings.from_json({}) == AcquisitionSettings()
    assert DetectorSettings.from_json({"iterations": 7}).iterations == 7


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"batchsize": 3}, "Unknown setting `batchsize`; did you mean `batch_size`"),
        ({"colour": 3}, "Unknown setting `colour`; known are strategy"),
        ({"batch_size": "3"}, "`batch_size` is '3'; it must be a whole number, at least 1"),
        ({"batch_size": True}, "`batch_size` is True"),
        ({"random_fraction": 1.5}, "`random_fraction` is 1.5; it must be a number, at least 0 and at most 1"),
        ({"random_fraction": float("nan")}, "`random_fraction` is nan"),
        ({"strategy": "margin"}, "`strategy` is 'margin'; it can be"),
        ({"pool_factor": 0.5}, "`pool_factor` is 0.5"),
        ([1, 2], "must be names with values"),
    ],
)
def test_acquisition_settings_that_make_no_sense_are_refused(data, words):
    with pytest.raises(SettingsError, match=words):
        AcquisitionSettings.from_json(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"fusion": "sum"}, "`fusion` is 'sum'; it can be residual_cross_attention or cross_attention or "),
        ({"anchor": 3}, "`anchor` is 3; it must be the name"),
        ({"learning_rate": 0}, "`learning_rate` is 0; it must be a number, above 0 and below 1, or null"),
        ({"modality_dropout": 1}, "`modality_dropout` is 1"),
        ({"image_size": 16}, "`image_size` is 16"),
        ({"iterations": 0}, "`iterations` is 0"),
        ({"seed": -1}, "`seed` is -1"),
    ],
)
def test_detector_settings_that_make_no_sense_are_refused(data, words):
    with pytest.raises(SettingsError, match=words):
        DetectorSettings.from_json(data)
