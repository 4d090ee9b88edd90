"""Choosing where to compute, and saying what it cost."""

from __future__ import annotations

import resource
import sys

import torch

from ml_backend.detector.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise DeviceError(f"The device '{name}' is unknown: use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"The device '{name}' was asked for, but this machine offers {torch.cuda.device_count()} CUDA devices: "
            "use --device cpu, or run where a GPU is."
        )
    return device


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far.

    Of a GPU it is torch's, since :func:`start_measuring_memory`. Otherwise it is this process's largest resident set
    since it began, whatever it was that needed it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def start_measuring_memory(device: torch.device) -> None:
    """Let :func:`peak_memory_mb` count from here on, where that is possible: on a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_name(device: torch.device) -> str:
    """For the record: ``NVIDIA H100 80GB HBM3``, or ``cpu (8 threads)``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)"
