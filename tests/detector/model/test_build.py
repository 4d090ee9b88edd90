"""The sizes build as published, and activations can be recomputed without changing what is learnt."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from contracts.network import FUSIONS, SIZES, Fusion, Size, stacks_bands
from ml_backend.detector import DetectorConfig, ModalitySpec
from ml_backend.detector.model import build as building
from ml_backend.detector.model import build_model, model_config
from ml_backend.detector.model.fusion import FUSION_STRATEGIES
from ml_backend.detector.model.openmmlab import MODELS, ConfigDict

RGB = ModalitySpec("rgb", ("red", "green", "blue"), (0.0, 1.0), None, (0.5,) * 3, (0.2,) * 3)
DEM = ModalitySpec("dem", ("dem",), (0.0, 1.0), None, (0.5,), (0.2,))


def model(modalities: tuple[ModalitySpec, ...] = (RGB, DEM), **settings: object) -> nn.Module:
    config = DetectorConfig(modalities=tuple(m.name for m in modalities), anchor="rgb", **settings)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return build_model(config, modalities, 1)


def unfilled(modalities: tuple[ModalitySpec, ...], size: Size, **settings: Any) -> nn.Module:
    """A model without memory for its weights."""
    config = DetectorConfig(size=size, modalities=tuple(m.name for m in modalities), anchor="rgb", **settings)
    with torch.device("meta"):
        built: nn.Module = MODELS.build(ConfigDict(model_config(config, modalities, 1)))
    return built


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_size_and_fusion_of_the_contract_is_built(size: Size, fusion: Fusion) -> None:
    names = unfilled((RGB, DEM), size, fusion=fusion).state_dict()
    assert any(name.startswith("backbone.branches.stacked.") for name in names) == stacks_bands(fusion)


def test_nothing_is_built_that_the_contract_does_not_name() -> None:
    assert (set(building.SIZES), set(FUSION_STRATEGIES)) == (set(SIZES), set(FUSIONS))


# MViTv2 paper, table 1: 24 M (T), 35 M (S), 52 M (B) with the classifier's 0.8 M; table 5: 76, 87, 103 M for the
# Cascade Mask R-CNN, whose mask and box heads for 80 classes, with four convolutions each, are larger than ours
@pytest.mark.parametrize(("size", "backbone"), [("tiny", 24), ("small", 35), ("base", 52)])
def test_published_sizes_have_the_published_number_of_parameters(size: str, backbone: float) -> None:
    assert millions(unfilled((RGB,), size).get_submodule("backbone")) == pytest.approx(backbone - 0.8, abs=0.6)


def test_each_modality_costs_one_backbone_and_little_more() -> None:
    one, two = unfilled((RGB,), "base"), unfilled((RGB, DEM), "base")
    assert millions(two) - millions(one) < 1.15 * millions(one.get_submodule("backbone"))


def gradients(module: nn.Module) -> tuple[list[torch.Tensor], int]:
    """Of a training step of the backbone, with random depth; and the bytes kept for the backward pass."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    inputs = torch.rand(2, 6, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sum(scale.square().mean() for scale in module.train()(inputs))
    loss.backward()
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None], kept


@pytest.fixture
def random_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    nano = building.SIZES["nano"]
    monkeypatch.setitem(building.SIZES, "nano", replace(nano, drop_path=0.5))


@pytest.mark.usefixtures("random_depth")
@pytest.mark.parametrize("prepare", [lambda module: module, copy.deepcopy], ids=["itself", "a copy, as for averaging"])
def test_recomputed_activations_give_the_same_gradients_from_less_memory(
    prepare: Callable[[nn.Module], nn.Module],
) -> None:
    plain, plain_bytes = gradients(model().get_submodule("backbone"))
    saving = prepare(model(activation_checkpointing=True).get_submodule("backbone"))
    recomputed, recomputed_bytes = gradients(saving)
    assert len(plain) == len(recomputed) > 100
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))
    assert recomputed_bytes < plain_bytes / 2
    assert model().state_dict().keys() == model(activation_checkpointing=True).state_dict().keys()
