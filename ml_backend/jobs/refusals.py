"""Turns the errors of the detector and of acquisition into the platform's refusals."""

from collections.abc import Iterator
from contextlib import contextmanager

from ml_backend.acquisition.errors import AcquisitionError
from ml_backend.detector.errors import DetectorError, FolderInUseError, TrainingStoppedError
from thawloop.core.errors import Refused
from thawloop.core.jobs import JobContext


class DetectorRefused(Refused):
    """The detector or acquisition refused; the text is that of its error."""


@contextmanager
def refusals(job: JobContext) -> Iterator[None]:
    """Raise errors of the detector or acquisition as the platform's.

    Raises:
        JobCancelled: the job was cancelled, and the detector stopped.
        FolderInUseError: an earlier attempt that lost its lease is still running; the job is retried later.
        DetectorRefused: any other error, which a person must resolve.
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
