"""The parts of a model that a configuration can name, to freeze them or lower their learning rate."""

from __future__ import annotations

from torch import nn

from contracts.network import stacks_bands
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.errors import ConfigError

MODULES = {"neck": "neck", "rpn": "rpn_head", "roi_head": "roi_head"}


def check_parts(config: DetectorConfig) -> None:
    """Check that every part to be frozen or slowed exists in the network.

    Raises:
        ConfigError: a modality has no backbone of its own, because the fusion stacks all bands into one.
    """
    if not stacks_bands(config.fusion) or len(config.modalities) == 1:
        return
    for part in (*config.freeze, *dict(config.slow)):
        if part not in MODULES:
            raise ConfigError(
                f"The part '{part}' cannot be frozen or slowed with fusion = '{config.fusion}', which has one backbone "
                "for all modalities: leave it out or choose another fusion."
            )


def part_modules(model: nn.Module, parts: tuple[str, ...]) -> list[nn.Module]:
    """The modules of parts named as in :class:`DetectorConfig`, checked by :func:`check_parts`."""
    return [model.get_submodule(MODULES.get(part, f"backbone.branches.{part}")) for part in parts]


def freeze(model: nn.Module, config: DetectorConfig) -> None:
    """Turn off the gradients of the configured parts.

    Raises:
        ConfigError: nothing would be left to train.
    """
    for module in part_modules(model, config.freeze):
        module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"The configuration freezes all parts ({', '.join(config.freeze)}): leave one to train.")


def set_training_mode(model: nn.Module, config: DetectorConfig) -> None:
    """Set training mode, except for frozen parts, whose stochastic depth would only add noise.

    A frozen backbone needs no memory for gradients: neither its input nor its weights require one, so torch stores no
    activations. A frozen neck and frozen heads still pass gradients to the preceding parts.
    """
    model.train()
    for module in part_modules(model, config.freeze):
        module.eval()
