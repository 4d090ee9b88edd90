"""MViTv2 with validity: mmpretrain's network and weights, with attention that leaves out positions without data.

The attention is computed by ``scaled_dot_product_attention``, which is faster and gives the same results.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ml_backend.detector.model.masked import has_valid_input, logit_mask, position_weights
from ml_backend.detector.model.openmmlab import (
    MODELS,
    MultiScaleAttention,
    MultiScaleBlock,
    MViT,
    attention_pool,
    resize_decomposed_rel_pos,
)

Size = tuple[int, int]


class FusedAttention(MultiScaleAttention):  # type: ignore[misc]
    """Pooling attention (arXiv 2112.01526) computed by torch's ``scaled_dot_product_attention``.

    The decomposed relative positions are passed as the mask. In prediction on a CPU this is one fused kernel; in
    training, where the mask has a gradient, torch uses its plain implementation there. Tokens are pooled in their
    existing memory order, which is faster in both.
    """

    @classmethod
    def replace(cls, attention: MultiScaleAttention) -> None:
        """Convert an existing module in place; there is no additional state, so weights keep their names."""
        assert attention.residual_pooling, "as every MViTv2 has it"
        assert attention.rel_pos_spatial, "as every MViTv2 has it"
        attention.__class__ = cls

    def forward(self, x: Tensor, in_size: Size, valid: Tensor | None = None) -> tuple[Tensor, Size]:
        """As MultiScaleAttention's: x [B, h*w, C] of a map of ``in_size``; returns [B, h'*w', C'] and (h', w').

        ``valid`` [B, 1, h, w] says which tokens have data. Keys that are pooled only from tokens without data are
        masked; in a tile without any data, none is.
        """
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, h*w, d]
        q, q_size = _pool(q, self.pool_q, self.norm_q, in_size)
        k, k_size = _pool(k, self.pool_k, self.norm_k, in_size)
        v, _ = _pool(v, self.pool_v, self.norm_v, in_size)
        mask = self._positions(q, q_size, k_size)
        if valid is not None:
            mask = mask + logit_mask(position_weights(has_valid_input(valid, self.pool_k)), mask.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, mask, scale=self.scale) + q
        return self.proj(attended.transpose(1, 2).flatten(2)), q_size

    def _positions(self, q: Tensor, q_size: Size, k_size: Size) -> Tensor:
        """The relative position bias [B, heads, queries, keys], from distances in rows and columns."""
        rows = resize_decomposed_rel_pos(self.rel_pos_h, q_size[0], k_size[0])
        columns = resize_decomposed_rel_pos(self.rel_pos_w, q_size[1], k_size[1])
        places = torch.unflatten(q, 2, q_size)
        by_row = torch.einsum("bnhwc,hkc->bnhwk", places, rows)
        by_column = torch.einsum("bnhwc,wkc->bnhwk", places, columns)
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)


class MaskedBlock(MultiScaleBlock):  # type: ignore[misc]
    """A block of MViTv2 that passes validity to its attention.

    There is no additional state, so an existing block can be converted, and weights keep their names.
    """

    recompute = False

    @classmethod
    def replace(cls, block: MultiScaleBlock, recompute: bool) -> None:
        """Convert an existing block in place; ``recompute`` stores only its input in training, and recomputes the
        activations in the backward pass.
        """
        assert block.dim_mul_in_attention, "as every MViTv2 has it"
        FusedAttention.replace(block.attn)
        block.__class__ = cls
        block.recompute = recompute

    def forward(self, x: Tensor, in_size: Size, valid: Tensor | None = None) -> tuple[Tensor, Size]:
        """As MultiScaleBlock's: tokens [B, h*w, C] of a map of ``in_size``; ``valid`` [B, 1, h, w]: which have
        data.

        When recomputing, stochastic depth draws the same numbers in both passes.
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
    """``mmpretrain.MViT`` whose attention leaves out tokens without data.

    A token has data if any pixel in the receptive field of its convolutions has.

    Args:
        activation_checkpointing: recompute the activations of each block in the backward pass, to save memory.
        kwargs: those of ``mmpretrain.MViT``, without absolute positions (no MViTv2 detector has them).
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
            valid: [B, 1, H, W], 1 where the image has data and 0 elsewhere; None if it has data everywhere, which
                gives the same result faster. A tile without any data counts as valid everywhere: the mean image.

        Returns:
            One map [B, channels, H / stride, W / stride] per scale.
        """
        tokens, size = self.patch_embed(image)
        if valid is not None:
            valid = has_valid_input(valid, self.patch_embed.projection)
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


def _pool(tokens: Tensor, pool: nn.Module, norm: nn.Module, size: Size) -> tuple[Tensor, Size]:
    """Pooled and normalised tokens [B, heads, h'*w', d] of [B, heads, h*w, d], and (h', w')."""
    maps = pool(torch.unflatten(tokens.flatten(0, 1), 1, size).permute(0, 3, 1, 2))
    pooled = torch.unflatten(maps.permute(0, 2, 3, 1).flatten(1, 2), 0, tokens.shape[:2])
    return norm(pooled), (maps.shape[2], maps.shape[3])
