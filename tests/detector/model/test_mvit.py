"""The backbone's attention answers and learns as mmpretrain's does, and leaves out what has no data."""

import pytest
import torch

from ml_backend.detector.model.build import SIZES
from ml_backend.detector.model.masked import has_valid_input
from ml_backend.detector.model.openmmlab import MODELS
from tests.detector.rounding import assert_same_but_for_rounding


def backbone(size: str, kind: str = "MaskedMViT", **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    of = SIZES[size]
    built = MODELS.build(
        {"type": kind, "arch": of.arch, "img_size": of.pretrain_size, "out_scales": [0, 1, 2, 3]} | more
    )
    built.init_weights()
    return built


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mask", ["none", "whole", "absent"])
@pytest.mark.parametrize(
    ("size", "height", "width"),
    [("nano", 64, 64), ("nano", 96, 160), pytest.param("tiny", 128, 96, marks=pytest.mark.slow)],
)
def test_it_computes_what_mmpretrain_does(size: str, height: int, width: int, mask: str) -> None:
    """An image without any data counts as a whole: the mean image, to mmpretrain as to us."""
    stock, ours = backbone(size, "mmpretrain.MViT"), backbone(size)
    ours.load_state_dict(stock.state_dict())
    image = picture(2, 3, height, width) * (mask != "absent")
    valid = {"none": (), "whole": (torch.ones(2, 1, height, width),), "absent": (torch.zeros(2, 1, height, width),)}
    maps, gradients = [], []
    for model, inputs in ((stock, (image,)), (ours, (image, *valid[mask]))):
        model.eval()
        out = model(*inputs)
        sum(scale.square().mean() for scale in out).backward()
        maps.append(out)
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert_same_but_for_rounding(*maps, stock)
    assert_same_but_for_rounding(*gradients, stock)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("edge", range(5, 28))
@pytest.mark.parametrize("mirrored", [False, True])
def test_nothing_attends_to_places_without_data(training: bool, edge: int, mirrored: bool) -> None:
    """What tokens under nodata hold reaches no further than the convolutions that pool queries and keys."""
    attention = backbone("nano").blocks[0].attn.train(training)
    for table in (attention.rel_pos_h, attention.rel_pos_w):
        torch.nn.init.normal_(table, std=0.1)
    side, beside = 32, 2  # tokens beyond the edge that a key with data sees, too
    valid = torch.ones(2, 1, side, side)
    valid[0, :, :, edge:] = 0  # of the second tile everything is valid
    tokens = picture(2, side, side, 32)
    spoiled = tokens.clone()
    spoiled[:, :, edge + beside :] = 7.0
    if mirrored:
        valid, tokens, spoiled = valid.flip(3), tokens.flip(2), spoiled.flip(2)
    with torch.set_grad_enabled(training):
        (a, _), (b, _) = (attention(x.flatten(1, 2), (side, side), valid) for x in (tokens, spoiled))
    a, b = (torch.unflatten(x, 1, (side, side)) for x in (a, b))
    a, b = (x.flip(2)[:, :, :edge] if mirrored else x[:, :, :edge] for x in (a, b))
    assert torch.equal(a[0], b[0])
    assert (a[1] - b[1]).abs().amax(dim=2).min() > 1e-5, "every place sees the whole tile"


def told(valid: torch.Tensor) -> list[torch.Tensor]:
    """Of each block of a nano, the validity of its tokens, as its attention is told."""
    model, seen = backbone("nano"), []
    for block in model.blocks:
        block.attn.register_forward_pre_hook(lambda module, given: seen.append(given[2]))
    with torch.no_grad():
        model(torch.zeros(1, 3, *valid.shape[2:]), valid)
    return seen


@pytest.mark.parametrize("edge", range(1, 64, 3))
def test_a_token_has_data_just_where_its_convolutions_see_some(edge: int) -> None:
    """Kernels with ones for weights say what they see, whatever the sizes, strides and paddings."""
    valid = torch.zeros(1, 1, 64, 96)
    valid[..., 40:, edge : edge + 5] = 1
    tokens = sees(backbone("nano").patch_embed.projection, valid)
    assert tuple(tokens.shape[2:]) == (16, 24)
    for block, known in zip(backbone("nano").blocks, told(valid), strict=True):
        assert torch.equal(known, tokens)
        assert torch.equal(has_valid_input(known, block.attn.pool_k), sees(block.attn.pool_k, tokens))
        if block.attn.pool_q.stride != (1, 1):
            tokens = sees(block.attn.pool_q, tokens)
    assert 0 < tokens.sum() < tokens.numel()


def sees(convolution: torch.nn.Conv2d, valid: torch.Tensor) -> torch.Tensor:
    """Where a convolution has a one under its kernel."""
    kernel = torch.ones(1, 1, *convolution.kernel_size)
    found = torch.nn.functional.conv2d(valid, kernel, stride=convolution.stride, padding=convolution.padding)
    return (found > 0).float()


def test_gradients_are_those_of_the_tokens_with_data() -> None:
    model = backbone("nano")
    valid = torch.ones(1, 1, 128, 128)
    valid[:, :, :, 64:] = 0
    image = (picture(1, 3, 128, 128) * valid).requires_grad_()
    scale = model(image, valid)[0]
    scale[..., :14].sum().backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad[..., :60].abs().max() > 0
    assert image.grad[..., 76:].abs().max() == 0


def test_recomputation_learns_the_same() -> None:
    """With gaps, and with stochastic depth."""
    valid = (picture(2, 1, 64, 64) > 0.3).float()
    valid[0, :, :32] = 0
    image, gradients = picture(2, 3, 64, 64) * valid, []
    for again in (False, True):
        model = backbone("nano", activation_checkpointing=again, drop_path_rate=0.5)
        torch.manual_seed(3)
        sum(scale.square().mean() for scale in model(image, valid)).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert_same_but_for_rounding(*gradients, model)
