"""The optimizer (AdamW with parameter groups) and the learning rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.training.parts import part_modules

NO_DECAY = ("bias", "norm", "rel_pos")


def learning_rate(step: int, config: DetectorConfig) -> float:
    """Linear warmup, then cosine decay to a hundredth of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.iterations - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def make_optimizer(model: nn.Module, config: DetectorConfig, *, fresh_fusion: bool = False) -> torch.optim.Optimizer:
    """AdamW over the parameters that are not frozen, without weight decay on norms, biases and relative positions.

    Each group has a ``factor`` of the learning rate: 1, that of its part in the configuration's ``slow``, or
    ``fusion_rate``.

    Args:
        model: the detector.
        config: of the training.
        fresh_fusion: whether only the fusion is not pretrained.
    """
    factors = {
        parameter: factor
        for part, factor in config.slow
        for module in part_modules(model, (part,))
        for parameter in module.parameters()
    }
    if fresh_fusion:
        factors |= dict.fromkeys(model.get_submodule("backbone.fusion").parameters(), config.fusion_rate)
    members: dict[tuple[float, float], list[nn.Parameter]] = {(1.0, config.weight_decay): [], (1.0, 0.0): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if any(part in name for part in NO_DECAY) else config.weight_decay
            members.setdefault((factors.get(parameter, 1.0), decay), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (factor, decay), parameters in members.items()
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, config: DetectorConfig) -> None:
    """Set the learning rate of every group for this step."""
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * learning_rate(step, config)
