"""How far two ways of computing the same may lie apart: kernels that add in another order round differently."""

from collections.abc import Iterable
from math import sqrt

import torch


def rounding(model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> float:
    """Relative error that rounding may bring into what a model computes.

    Each layer adds up as many products as its kernel holds. The error of such a sum grows as the root of its length
    (Higham and Mary 2019, A new approach to probabilistic rounding error analysis), and layers hand theirs on.
    """
    layers = sum(1 for module in model.modules() if not list(module.children()))
    longest = max(parameter[0].numel() for parameter in model.parameters() if parameter.ndim > 1)
    return torch.finfo(dtype).eps * layers * sqrt(longest)


def assert_same_but_for_rounding(
    ours: Iterable[torch.Tensor], theirs: Iterable[torch.Tensor], model: torch.nn.Module
) -> None:
    """Whether a model's tensors agree, each place to the rounding of the largest value among them all.

    What is zero in exact arithmetic (the gradient of a key's bias) is what rounding leaves of sums of large terms, so
    it cannot be measured by its own size.
    """
    pairs = list(zip(ours, theirs, strict=True))
    scale = max(float(theirs.detach().abs().max()) for _, theirs in pairs)
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=scale * rounding(model), rtol=0)
