"""The detector and acquisition have errors of their own; to the platform they are refusals."""

from collections.abc import Iterator
from contextlib import contextmanager

from ml_backend.acquisition.errors import AcquisitionError
from ml_backend.detector.errors import DetectorError, FolderInUseError, TrainingStoppedError
from thawloop.core.errors import Refused
from thawloop.core.jobs import JobContext


class DetectorRefused(Refused):
    """The detector cannot do what it was asked; the sentence is its own."""


@contextmanager
def refusals(job: JobContext) -> Iterator[None]:
    """Turn a sentence for people from the detector or acquisition into one from the platform.

    Raises:
        JobCancelled: the job was told to stop, and the detector did.
        FolderInUseError: an earlier attempt that lost its lease is not dead yet; the job is tried again after a while.
        DetectorRefused: anything else that a person must mend.
    """
    try:
        yield
    except TrainingStoppedError:
        job.check_cancelled()
        raise
    except FolderInUseError:
        raise
    except (DetectorError, AcquisitionError) as error:
        raise DetectorRefused(str(error)) from error
