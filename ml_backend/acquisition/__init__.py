"""Which tiles to annotate next: how uncertain the model is about each, and how different they are from the labelled.

Takes arrays and returns indexes; uses neither the database nor torch. See :func:`ml_backend.acquisition.select.select`.
"""

from ml_backend.acquisition.diversity import k_center
from ml_backend.acquisition.errors import AcquisitionError
from ml_backend.acquisition.scores import ScoredInstance, Uncertainty, uncertainty
from ml_backend.acquisition.select import Candidates, Selected, select

__all__ = [
    "AcquisitionError",
    "Candidates",
    "ScoredInstance",
    "Selected",
    "Uncertainty",
    "k_center",
    "select",
    "uncertainty",
]
