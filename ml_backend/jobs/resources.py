"""What a job needs before it calls the detector: the dataset directory, the device and the number of threads."""

import os
from pathlib import Path

import structlog
from django.conf import settings

from thawloop.core.errors import Refused
from thawloop.core.jobs import JobContext
from thawloop.releases.services import materialise
from thawloop.training.errors import RetrainingConflict
from thawloop.training.models import Retraining

log = structlog.get_logger(__name__)


class DeviceRefused(Refused):
    """The configured device is not available on this machine."""


def dataset_of(job: JobContext, retraining: Retraining) -> Path:
    """The dataset directory of a retraining's release, written again if it is missing.

    Raises:
        RetrainingConflict: the retraining has no release yet.
    """
    if retraining.release is None:
        raise RetrainingConflict(f"Retraining {retraining.number} has no release to learn from yet.")
    return materialise(retraining.release, progress=lambda share, text: job.check_cancelled())


def ready_device() -> str:
    """Set torch's threads and choose the device of THAWLOOP_DEVICE, once per job.

    Returns:
        `cpu`, `cuda` or `cuda:N`, to be passed to the detector. `auto` takes a GPU where there is one.

    Raises:
        DeviceRefused: THAWLOOP_DEVICE names a GPU that this machine does not have.
    """
    import torch

    from ml_backend.detector.devices import choose_device
    from ml_backend.detector.errors import DeviceError

    torch.set_num_threads(settings.THAWLOOP_TORCH_THREADS or len(os.sched_getaffinity(0)))
    wanted = settings.THAWLOOP_DEVICE
    try:
        device = choose_device(wanted)
    except DeviceError as error:
        raise DeviceRefused(
            f"THAWLOOP_DEVICE is `{wanted}`, but this machine offers {torch.cuda.device_count()} CUDA devices: set it "
            "to `auto` or `cpu`, or run the gpu worker where a GPU is."
        ) from error
    if wanted == "auto" and device.type == "cpu":
        log.info("no GPU here: computing on the CPU", threads=torch.get_num_threads())
    return str(device)


def device_name(device: str) -> str:
    """The device's name for the training run's row (50 characters), e.g. `NVIDIA H100 80GB HBM3`, `cpu (8 threads)`."""
    import torch

    from ml_backend.detector import devices

    return devices.device_name(torch.device(device))[:50]
