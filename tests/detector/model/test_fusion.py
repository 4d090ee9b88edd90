"""Fusion: neutral at the start, blind to invalid pixels, and alive in training."""

import pytest
import torch

from contracts.network import FUSIONS, stacks_bands
from ml_backend.detector.model.fusion import FUSION_STRATEGIES, Fusion, ResidualCrossAttention

MODALITIES = ("rgb", "ndvi", "dem")
JOINING = sorted(name for name in FUSIONS if not stacks_bands(name))
STARTS_AS_ANCHOR = sorted(set(JOINING) - {"cross_attention"})


def maps(seed: int = 0, size: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, 32, size, size, generator=generator) for name in MODALITIES}


def all_valid(size: int = 12) -> dict[str, torch.Tensor]:
    return {name: torch.ones(2, 1, size, size) for name in MODALITIES}


def fresh(name: str, modalities: tuple[str, ...] = MODALITIES) -> Fusion:
    torch.manual_seed(0)
    return FUSION_STRATEGIES[name](32, modalities, "rgb")


def used(name: str) -> Fusion:
    """As after some training: no weight is neutral any more."""
    module = fresh(name)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


@pytest.fixture
def fusion() -> ResidualCrossAttention:
    module = fresh("residual_cross_attention")
    assert isinstance(module, ResidualCrossAttention)
    torch.nn.init.normal_(module.project.weight)
    torch.nn.init.normal_(module.project.bias)
    return module


@pytest.mark.parametrize("modalities", [("rgb", "dem"), ("dem", "rgb"), MODALITIES])
@pytest.mark.parametrize("name", STARTS_AS_ANCHOR)
def test_a_new_model_computes_exactly_the_anchors_features(name: str, modalities: tuple[str, ...]) -> None:
    features, validity = maps(), all_valid()
    validity["rgb"][0, :, :4] = 0
    validity["dem"][1] = 0
    assert torch.equal(fresh(name, modalities)(features, validity), features["rgb"])


def test_attention_without_residual_starts_in_the_anchors_feature_space() -> None:
    """What it gathers is an average of the anchor's own features, where nothing else is valid."""
    features, validity = maps(), all_valid()
    for name in ("ndvi", "dem"):
        validity[name].zero_()
    flat = {name: value.mean(dim=(2, 3), keepdim=True).expand_as(value) for name, value in features.items()}
    gathered = fresh("cross_attention")(flat, validity)
    plain = torch.nn.LayerNorm(32)(flat["rgb"].movedim(1, 3)).movedim(3, 1)
    torch.testing.assert_close(gathered, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", JOINING)
def test_every_other_modality_is_learnt_from_at_the_first_step(name: str) -> None:
    module, features = fresh(name), maps()
    before = module(features, all_valid())
    (before * maps(seed=2)["rgb"]).sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad.sign()
    for other in ("ndvi", "dem"):
        changed = features | {other: maps(seed=1)[other]}
        assert not torch.allclose(module(changed, all_valid()), module(features, all_valid()), atol=1e-3)


@pytest.mark.parametrize("name", JOINING)
def test_invalid_places_have_no_influence(name: str) -> None:
    module, features, validity = used(name), maps(), all_valid()
    validity["dem"][:, :, :5] = 0
    validity["ndvi"][1] = 0
    spoiled = {key: value.clone() for key, value in features.items()}
    spoiled["dem"][:, :, :5] = 1000.0
    spoiled["ndvi"][1] = torch.nan
    joined = module(spoiled, validity)
    assert torch.equal(joined, module(features, validity))
    assert torch.isfinite(joined).all()


@pytest.mark.parametrize("name", JOINING)
def test_it_matters_whether_a_modality_is_there(name: str) -> None:
    module, features, without = used(name), maps(), all_valid()
    without["dem"].zero_()
    assert not torch.allclose(module(features, without), module(features, all_valid()), atol=1e-3)


@pytest.mark.parametrize("name", JOINING)
@pytest.mark.parametrize("missing", ["rgb", "dem", "all"])
def test_gradients_stay_finite_and_repeat_exactly_whatever_is_missing(name: str, missing: str) -> None:
    validity = all_valid()
    for modality in MODALITIES if missing == "all" else (missing,):
        validity[modality][0].zero_()
    gradients = []
    for _ in range(2):
        module, features = used(name), {key: value.requires_grad_() for key, value in maps().items()}
        joined = module(features, validity)
        joined.square().sum().backward()
        assert torch.isfinite(joined).all()
        gradients.append([tensor.grad for tensor in (*features.values(), *module.parameters())])
    for first, second in zip(*gradients, strict=True):
        assert first is not None
        assert torch.isfinite(first).all()
        assert torch.equal(first, second)


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
    moved["dem"][:, :, 3, 3] = 5 * maps(seed=1, size=16)["dem"][:, :, 3, 3]
    change = (fusion(moved, all_valid(16)) - base).abs().sum(dim=1)[0]
    assert change[3, 3] == change.max()
    assert change[3, 3] > 10 * change.median()  # what lies right there does not drown in the tile's average
    assert (change > 0).float().mean() > 0.9
