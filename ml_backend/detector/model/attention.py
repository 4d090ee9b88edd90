"""MViTv2's attention by ``scaled_dot_product_attention``: mmpretrain's weights and answers, in less time.

Other than mmpretrain's it can leave out places without data.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ml_backend.detector.model.masked import bar, counted, reached
from ml_backend.detector.model.openmmlab import MultiScaleAttention, resize_decomposed_rel_pos

Size = tuple[int, int]


class FusedAttention(MultiScaleAttention):  # type: ignore[misc]
    """Pooling attention (arXiv 2112.01526) whose logits and softmax are left to torch.

    The decomposed relative positions are the mask. In prediction on a CPU this runs in one fused kernel; in training,
    where the mask has a gradient, torch takes the plain way there. Tokens are pooled in the memory order that they
    have anyway, which is quicker in both.
    """

    @classmethod
    def replace(cls, attention: MultiScaleAttention) -> None:
        """Let one that exists compute so; there is no state of its own, so weights keep their names."""
        assert attention.residual_pooling, "as every MViTv2 has it"
        assert attention.rel_pos_spatial, "as every MViTv2 has it"
        attention.__class__ = cls

    def forward(self, x: Tensor, in_size: Size, valid: Tensor | None = None) -> tuple[Tensor, Size]:
        """As MultiScaleAttention's: x [B, h*w, C] of a map of ``in_size``; returns [B, h'*w', C'] and (h', w').

        ``valid`` [B, 1, h, w] says which tokens have data. Nothing attends to a key that is pooled from tokens without;
        in a tile without any data all count.
        """
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, h*w, d]
        q, q_size = _pool(q, self.pool_q, self.norm_q, in_size)
        k, k_size = _pool(k, self.pool_k, self.norm_k, in_size)
        v, _ = _pool(v, self.pool_v, self.norm_v, in_size)
        mask = self._positions(q, q_size, k_size)
        if valid is not None:
            mask = mask + bar(counted(reached(valid, self.pool_k)), mask.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, mask, scale=self.scale) + q
        return self.proj(attended.transpose(1, 2).flatten(2)), q_size

    def _positions(self, q: Tensor, q_size: Size, k_size: Size) -> Tensor:
        """What is added to the logits [B, heads, queries, keys] for how far apart rows and columns are."""
        rows = resize_decomposed_rel_pos(self.rel_pos_h, q_size[0], k_size[0])
        columns = resize_decomposed_rel_pos(self.rel_pos_w, q_size[1], k_size[1])
        places = torch.unflatten(q, 2, q_size)
        by_row = torch.einsum("bnhwc,hkc->bnhwk", places, rows)
        by_column = torch.einsum("bnhwc,wkc->bnhwk", places, columns)
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)


def _pool(tokens: Tensor, pool: nn.Module, norm: nn.Module, size: Size) -> tuple[Tensor, Size]:
    """Pooled and normalised tokens [B, heads, h'*w', d] of [B, heads, h*w, d], and (h', w')."""
    maps = pool(torch.unflatten(tokens.flatten(0, 1), 1, size).permute(0, 3, 1, 2))
    pooled = torch.unflatten(maps.permute(0, 2, 3, 1).flatten(1, 2), 0, tokens.shape[:2])
    return norm(pooled), (maps.shape[2], maps.shape[3])
