"""Processes started by torchrun that train one model together; without torchrun, a team of one process.

Only the first process writes, evaluates and reports. Work that may fail is done by :meth:`Team.together` or
:meth:`Team.first`, so that a failure in one process ends all of them, and the first reports it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ml_backend.detector.errors import AnotherProcessFailedError, ConfigError, DetectorError, DeviceError

T = TypeVar("T")
# long enough for the first process to evaluate; a process that ends closes its connections at once
TIMEOUT = timedelta(hours=12)


class Team:
    """The group of processes, as seen from this one: ``rank`` of ``size``."""

    def __init__(self, rank: int, size: int, local_rank: int) -> None:
        self.rank, self.size, self._local_rank = rank, size, local_rank

    @property
    def is_first(self) -> bool:
        """Whether this process writes, evaluates and reports."""
        return self.rank == 0

    def device(self, chosen: torch.device) -> torch.device:
        """The device of this process; with CUDA, one GPU each."""
        if self.size == 1 or chosen.type != "cuda":
            return chosen
        if self._local_rank >= torch.cuda.device_count():
            raise DeviceError(
                f"torchrun started more processes than this machine's {torch.cuda.device_count()} CUDA devices: use "
                f"--nproc-per-node {torch.cuda.device_count()}, or --device cpu."
            )
        own = torch.device("cuda", self._local_rank)
        torch.cuda.set_device(own)
        return own

    def slots(self, tiles: int) -> range:
        """The indexes of this process's tiles among the ``tiles`` of a step.

        Raises:
            ConfigError: they cannot be divided equally.
        """
        if tiles % self.size:
            raise ConfigError(
                f"The {tiles} tiles of a step (batch_size * accumulate) cannot be shared by {self.size} processes: "
                f"give a batch size that is a multiple of {self.size}."
            )
        share = tiles // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def together(self, work: Callable[[], T]) -> T:
        """Call ``work`` in every process; if it fails in one, all raise, and the first process has the reason."""
        if self.size == 1:
            return work()
        failure: DetectorError | None = None
        try:
            result = work()
        except DetectorError as error:
            failure = error
        texts: list[str | None] = [None] * self.size
        dist.all_gather_object(texts, str(failure) if failure else None)
        failed = next((rank for rank, text in enumerate(texts) if text is not None), None)
        if failed is None:
            return result
        if not self.is_first:
            raise AnotherProcessFailedError(texts[failed])
        raise failure or DetectorError(f"Process {failed} of {self.size}: {texts[failed]}")

    def first(self, work: Callable[[], T]) -> T | None:
        """Call ``work`` in the first process, while the others wait and get None."""
        return self.together(lambda: work() if self.is_first else None)

    def agreed(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the first process, and return its result in all of them."""
        found = [self.first(work)]
        if self.size > 1:
            dist.broadcast_object_list(found)
        return cast(T, found[0])

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is True in any process."""
        if self.size == 1:
            return flag
        shared = torch.tensor(int(flag))
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return bool(shared)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of all processes' values."""
        if self.size == 1:
            return value
        shared = value.detach().clone()
        dist.all_reduce(shared, dist.ReduceOp.SUM)
        return shared / self.size

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model wrapped so that gradients are averaged over all processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def depend_on_all_weights(self, model: nn.Module, loss: Tensor) -> Tensor:
        """The loss plus zero times all weights: every process must have a gradient for every weight, even if a part was
        not used in it (a stage without proposals).
        """
        if self.size == 1:
            return loss
        return loss + 0.0 * sum(p.flatten()[0] for p in model.parameters() if p.requires_grad)

    def unsynchronised(self, model: nn.Module, more: bool) -> AbstractContextManager[Any]:
        """Do not average gradients while more forward passes follow before the optimizer's step."""
        return model.no_sync() if more and isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def join_team() -> Iterator[Team]:
    """Join the processes started together with this one by torchrun; nested calls return the same team."""
    if not dist.is_available() or not (dist.is_initialized() or dist.is_torchelastic_launched()):
        yield Team(0, 1, 0)
        return
    joined = not dist.is_initialized()
    if joined:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    try:
        yield Team(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or not _lost_connection(error):
            raise
        text = (
            "A process of this training ended or stopped answering: its own message says why; the same command "
            "continues from the last saved state."
        )
        raise (DeviceError if dist.get_rank() == 0 else AnotherProcessFailedError)(text) from None
    finally:
        if joined:
            dist.destroy_process_group()


def _lost_connection(error: RuntimeError) -> bool:
    """Whether the error is a lost connection to other processes; gloo has no exception type of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def is_first_process() -> bool:
    """Whether this is the only process, or the first one started by torchrun."""
    return not dist.is_torchelastic_launched() or os.environ.get("RANK", "0") == "0"
