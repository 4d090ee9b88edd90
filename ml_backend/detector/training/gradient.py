"""The gradient of one step, accumulated over several forward passes where configured or needed for memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.errors import DeviceError
from ml_backend.detector.training.log import LOSSES
from ml_backend.detector.training.precision import autocast
from ml_backend.detector.training.team import Team

Batch = dict[str, Any]
Losses = dict[str, Tensor]
SEEDS = 1 << 64  # number of different seeds in torch


class StepGradient:
    """Forward and backward of a step's tiles, at most ``micro`` of them at once.

    Where memory runs out, ``micro`` is halved and the step repeated: the tiles of a step, and so the schedule and the
    data order, stay the same. Randomness in a forward pass (RoI sampling, stochastic depth) depends only on
    the step and on the position of the first tile in it, so that a resumed training repeats it, and several processes
    compute the same as one process with as many forward passes.
    """

    def __init__(
        self, model: nn.Module, config: DetectorConfig, team: Team, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.model, self.config, self.team, self.device, self.dtype = model, config, team, device, dtype
        self.slots = team.slots(config.step_tiles)
        self.micro = min(config.batch_size, len(self.slots))

    @cached_property
    def _parallel(self) -> nn.Module:
        """The model that averages gradients over processes; created at the first step, by all processes together."""
        return self.team.parallel(self.model, self.device)

    def __call__(self, step: int, batch: Batch, report: Callable[[str], None]) -> Losses:
        """Compute the gradient of the parameters.

        Args:
            step: number of the step.
            batch: this process's tiles, in mmdet's format.
            report: called with a message when memory ran out.

        Returns:
            The mean over the tiles of all processes of the ``loss`` and of its parts (:data:`.log.LOSSES`).

        Raises:
            DeviceError: the memory does not hold a single tile.
        """
        while True:
            self.model.zero_grad(set_to_none=True)
            try:
                return self._mean(self._accumulate(step, batch))
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._refuse_if_indivisible()
            # outside the except clause, whose traceback would keep the activations
            torch.cuda.empty_cache()
            self.micro = -(-self.micro // 2)
            passes = -(-len(self.slots) // self.micro)
            report(f"out of memory: continues with {self.micro} tiles at once, {passes} times per step")

    def _mean(self, losses: Losses) -> Losses:
        """The mean over all processes."""
        return dict(zip(losses, self.team.mean(torch.stack(list(losses.values()))), strict=True))

    def _accumulate(self, step: int, batch: Batch) -> Losses:
        tiles = len(self.slots)
        total = {name: torch.zeros((), device=self.device) for name in ("loss", *LOSSES)}
        for first in range(0, tiles, self.micro):
            end = min(first + self.micro, tiles)
            torch.manual_seed((self.config.seed * 1_000_003 + step + self.slots[first] * 15_485_863) % SEEDS)
            with self.team.unsynchronised(self._parallel, more=end < tiles):
                share = (end - first) / tiles
                losses = self._losses({key: values[first:end] for key, values in batch.items()})
                self.team.depend_on_all_weights(self.model, losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
            for name, sum_so_far in total.items():
                if name in losses:  # a stage without proposals has none
                    sum_so_far += losses[name].detach() * share
        return total

    def _losses(self, batch: Batch) -> Losses:
        model: Any = self.model
        data = model.data_preprocessor(batch, training=True)
        with autocast(self.device, self.dtype):
            losses = self._parallel(**data, mode="loss")
        loss, parts = model.parse_losses(losses)
        return {**parts, "loss": loss}

    def _refuse_if_indivisible(self) -> None:
        """Raise for a single tile, or for several processes, none of which can repeat a step alone."""
        if self.micro > 1 and self.team.size == 1:
            return
        owner = "GPU" if self.device.type == "cuda" else "machine"
        raise DeviceError(
            f"The {owner}'s memory does not hold a batch of {self.micro} tiles: use a batch size of "
            f"{max(1, self.config.batch_size // 2)} or a smaller image size."
        ) from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it; the CPU's allocator says so in its text (c10/core/impl/alloc_cpu.cpp)."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
