"""The backbone's attention answers and learns as mmpretrain's does."""

import pytest
import torch

from ml_backend.detector.model.attention import FusedAttention
from ml_backend.detector.model.build import SIZES
from ml_backend.detector.model.openmmlab import MODELS, MultiScaleAttention


def backbone(size: str) -> torch.nn.Module:
    torch.manual_seed(0)
    of = SIZES[size]
    built = MODELS.build(
        {"type": "mmpretrain.MViT", "arch": of.arch, "img_size": of.pretrain_size, "out_scales": [0, 1, 2, 3]}
    )
    built.init_weights()
    return built


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [("nano", 64, 64), ("nano", 96, 160), pytest.param("tiny", 128, 96, marks=pytest.mark.slow)],
)
def test_it_computes_what_mmpretrain_does(size: str, height: int, width: int) -> None:
    stock, fused = backbone(size), backbone(size)
    fused.load_state_dict(stock.state_dict())
    for block in fused.blocks:
        assert type(block.attn) is MultiScaleAttention, "nothing else to be replaced"
        FusedAttention.replace(block.attn)
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    maps, gradients = [], []
    for model in (stock, fused):
        model.eval()
        out = model(image)
        sum(scale.square().mean() for scale in out).backward()
        maps.append(out)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*maps, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * float(a.abs().max()) + 1e-7, rtol=1e-3)
