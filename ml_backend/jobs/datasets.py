"""The dataset directory that a retraining learns and is measured on."""

from pathlib import Path

from thawloop.core.jobs import JobContext
from thawloop.releases.services import materialise
from thawloop.training.errors import RetrainingConflict
from thawloop.training.models import Retraining


def dataset_of(job: JobContext, retraining: Retraining) -> Path:
    """The folder; written again where it is gone.

    Raises:
        RetrainingConflict: the retraining has no release yet.
    """
    if retraining.release is None:
        raise RetrainingConflict(f"Retraining {retraining.number} has no release to learn from yet.")
    return materialise(retraining.release, progress=lambda share, text: job.check_cancelled())
