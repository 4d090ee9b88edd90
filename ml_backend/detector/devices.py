"""Choosing the device, and measuring its memory."""

from __future__ import annotations

import resource
import sys

import torch

from ml_backend.detector.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        DeviceError: this machine has no such device.
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
    """Peak memory in MiB.

    On a GPU: the most that torch has allocated since :func:`start_measuring_memory`. On a CPU: the largest resident
    set of this process since it started, whatever it was used for.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def start_measuring_memory(device: torch.device) -> None:
    """Reset what :func:`peak_memory_mb` measures; possible on a GPU only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_name(device: torch.device) -> str:
    """A readable name, such as ``NVIDIA H100 80GB HBM3`` or ``cpu (8 threads)``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)"
