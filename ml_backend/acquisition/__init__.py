"""Which tiles to annotate next: how unsure the model is of each, and how different they are from what is labelled.

Arrays in, indexes out; knows neither the database nor torch. See :func:`ml_backend.acquisition.select.select`.
"""

from ml_backend.acquisition.diversity import k_center
from ml_backend.acquisition.errors import AcquisitionError
from ml_backend.acquisition.scores import Instance, Uncertainty, uncertainty
from ml_backend.acquisition.select import Candidates, Selected, select

__all__ = [
    "AcquisitionError",
    "Candidates",
    "Instance",
    "Selected",
    "Uncertainty",
    "k_center",
    "select",
    "uncertainty",
]
