"""MViTv2 that knows where its image has data: mmpretrain's network and weights, whose attention leaves nodata out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ml_backend.detector.model.attention import FusedAttention
from ml_backend.detector.model.masked import reached
from ml_backend.detector.model.openmmlab import MODELS, MultiScaleBlock, MViT, attention_pool

Size = tuple[int, int]


class MaskedBlock(MultiScaleBlock):  # type: ignore[misc]
    """A block of MViTv2 that hands validity on to its attention.

    There is no state of its own, so a block that exists can become one, and weights keep their names.
    """

    recompute = False

    @classmethod
    def replace(cls, block: MultiScaleBlock, recompute: bool) -> None:
        """Let one that exists compute so; ``recompute`` keeps its input alone in training, and computes the rest again
        in the backward pass.
        """
        assert block.dim_mul_in_attention, "as every MViTv2 has it"
        FusedAttention.replace(block.attn)
        block.__class__ = cls
        block.recompute = recompute

    def forward(self, x: Tensor, in_size: Size, valid: Tensor | None = None) -> tuple[Tensor, Size]:
        """As MultiScaleBlock's: tokens [B, h*w, C] of a map of ``in_size``; ``valid`` [B, 1, h, w]: which saw data.

        Where it recomputes, stochastic depth draws the same numbers in both passes.
        """
        if self.recompute and self.training:
            result: tuple[Tensor, Size] = checkpoint(self._compute, x, in_size, valid, use_reentrant=False)
            return result
        return self._compute(x, in_size, valid)

    def _compute(self, x: Tensor, in_size: Size, valid: Tensor | None) -> tuple[Tensor, Size]:
        normed = self.norm1(x)
        attended, size = self.attn(normed, in_size, valid)
        skip = x if self.proj is None else self.proj(normed)
        if self.pool_skip is not None:
            skip, _ = attention_pool(skip, self.pool_skip, in_size)
        x = skip + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x))), size


@MODELS.register_module()
class MaskedMViT(MViT):  # type: ignore[misc]
    """``mmpretrain.MViT`` whose positions do not attend to what saw no data.

    A token has data where one pixel that its convolutions see has: with its own place it sees some around.

    Args:
        activation_checkpointing: trade time for memory in training, block by block.
        kwargs: as of ``mmpretrain.MViT``, without absolute positions (no MViTv2 detector has them).
    """

    def __init__(self, activation_checkpointing: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        assert not self.use_abs_pos_embed, "as every MViTv2 has it"
        for block in self.blocks:
            MaskedBlock.replace(block, activation_checkpointing)

    def forward(self, image: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """Features of a batch.

        Args:
            image: [B, C, H, W], zero where it has no data.
            valid: [B, 1, H, W], 1 where the image has data and 0 elsewhere; None where it has data everywhere, which
                computes the same sooner. A tile without any counts as a whole: it is the mean image.

        Returns:
            One map [B, channels, H / stride, W / stride] per scale.
        """
        tokens, size = self.patch_embed(image)
        if valid is not None:
            valid = reached(valid, self.patch_embed.projection)
        maps = []
        for number, block in enumerate(self.blocks):
            tokens, size = block(tokens, size, valid)
            if valid is not None and block.pool_skip is not None:
                valid = block.pool_skip(valid)
            scale = self.stage_indices.get(number)
            if scale in self.out_scales:
                tokens = getattr(self, f"norm{scale}")(tokens)
                maps.append(torch.unflatten(tokens.mT, 2, size).contiguous())
        return tuple(maps)
