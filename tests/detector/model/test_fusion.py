"""Fusion: neutral at the start, blind to invalid pixels, and alive in training."""

import pytest
import torch

from ml_backend.detector.config import FUSIONS
from ml_backend.detector.model.fusion import FUSION_STRATEGIES, ResidualCrossAttention

MODALITIES = ("rgb", "ndvi", "dem")


def maps(seed: int = 0, size: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, 32, size, size, generator=generator) for name in MODALITIES}


def all_valid(size: int = 12) -> dict[str, torch.Tensor]:
    return {name: torch.ones(2, 1, size, size) for name in MODALITIES}


@pytest.fixture
def fusion() -> ResidualCrossAttention:
    """As after some training: the projection has left zero."""
    torch.manual_seed(0)
    module = ResidualCrossAttention(32, MODALITIES, "rgb")
    torch.nn.init.normal_(module.project.weight)
    torch.nn.init.normal_(module.project.bias)
    return module


def test_config_offers_exactly_the_registered_strategies() -> None:
    assert set(FUSIONS) == set(FUSION_STRATEGIES)


def test_residual_attention_starts_as_exactly_the_anchor() -> None:
    features = maps()
    assert torch.equal(ResidualCrossAttention(32, MODALITIES, "rgb")(features, all_valid()), features["rgb"])


def test_attention_learns_from_the_first_step() -> None:
    module, features = ResidualCrossAttention(32, MODALITIES, "rgb"), maps()
    module(features, all_valid()).square().sum().backward()
    assert module.project.weight.grad is not None
    assert module.project.weight.grad.abs().max() > 0


def test_every_other_modality_matters(fusion: ResidualCrossAttention) -> None:
    before = fusion(maps(), all_valid())
    for name in ("ndvi", "dem"):
        changed = maps() | {name: maps(seed=1)[name]}
        assert not torch.allclose(fusion(changed, all_valid()), before, atol=1e-3)


def test_invalid_pixels_have_no_influence(fusion: ResidualCrossAttention) -> None:
    validity = all_valid()
    validity["dem"][:, :, :5] = 0
    features = maps()
    spoiled = {name: value.clone() for name, value in features.items()}
    spoiled["dem"][:, :, :5] = 1000.0
    # GroupNorm mixes pixels, so what is invalid must be neutral before it: see the backbone. Here: the same statistics.
    fusion.norms = torch.nn.ModuleDict({name: torch.nn.Identity() for name in MODALITIES})
    torch.testing.assert_close(fusion(spoiled, validity), fusion(features, validity))


def test_nothing_is_added_where_no_other_modality_is_valid(fusion: ResidualCrossAttention) -> None:
    validity = all_valid()
    for name in ("ndvi", "dem"):
        validity[name][0] = 0
    features = maps()
    fused = fusion(features, validity)
    assert torch.equal(fused[0], features["rgb"][0])
    assert not torch.allclose(fused[1], features["rgb"][1])
    assert torch.isfinite(fused).all()


def test_attention_sees_the_same_place_and_the_whole_tile(fusion: ResidualCrossAttention) -> None:
    features = maps(size=16)
    base = fusion(features, all_valid(16))
    moved = {name: value.clone() for name, value in features.items()}
    moved["dem"][:, :, 3, 3] += 5
    change = (fusion(moved, all_valid(16)) - base).abs().sum(dim=1)[0]
    assert change[3, 3] == change.max()
    assert (change > 0).float().mean() > 0.9
