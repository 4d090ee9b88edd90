"""Conversion of detectron2's tensor names of a (Cascade) Mask R-CNN on MViTv2 to mmdet's.

Both compute the same with the same weights: order of channels and classes (background last), box deltas and their
scales agree. Three differences are handled here:

- detectron2 has one mask head for all stages of a cascade: it is copied to each stage;
- a plain Mask R-CNN has one box head: it becomes that of the first stage, whose deltas have the same scale;
- convolutions followed by a batch norm (``mask_fcn1.norm``) become one convolution that includes the norm. Those with
  another norm are left out.

Tensors without a counterpart keep their name, and are reported as unused. Detectron2's MViT attends within windows of
56 tokens in most blocks; ours attends to all tokens in every block, with the same weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

STAGES = range(3)
MARK = re.compile(r"(module\.)?backbone\.bottom_up\.")
EPSILON = 1e-5  # epsilon of detectron2's batch norms
BACKBONE = {"patch_embed.proj.": "patch_embed.projection.", **{f"scale{n + 2}_norm.": f"norm{n}." for n in range(4)}}
PLACES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), places)
    for pattern, places in (
        (r"backbone\.fpn_lateral(?P<scale>[2-5])\.", ("neck.lateral_convs.{scale}.conv.",)),
        (r"backbone\.fpn_output(?P<scale>[2-5])\.", ("neck.fpn_convs.{scale}.conv.",)),
        (r"proposal_generator\.rpn_head\.conv\.(?!conv)", ("rpn_head.rpn_conv.",)),
        (r"proposal_generator\.rpn_head\.objectness_logits\.", ("rpn_head.rpn_cls.",)),
        (r"proposal_generator\.rpn_head\.anchor_deltas\.", ("rpn_head.rpn_reg.",)),
        (
            r"roi_heads\.box_head\.((?P<stage>\d)\.)?fc(?P<layer>\d)\.",
            ("roi_head.bbox_head.{stage}.shared_fcs.{layer}.",),
        ),
        (r"roi_heads\.box_predictor\.((?P<stage>\d)\.)?cls_score\.", ("roi_head.bbox_head.{stage}.fc_cls.",)),
        (r"roi_heads\.box_predictor\.((?P<stage>\d)\.)?bbox_pred\.", ("roi_head.bbox_head.{stage}.fc_reg.",)),
        (
            r"roi_heads\.mask_head\.mask_fcn(?P<layer>\d)\.",
            tuple(f"roi_head.mask_head.{s}.convs.{{layer}}.conv." for s in STAGES),
        ),
        (r"roi_heads\.mask_head\.deconv\.", tuple(f"roi_head.mask_head.{s}.upsample." for s in STAGES)),
        (r"roi_heads\.mask_head\.predictor\.", tuple(f"roi_head.mask_head.{s}.conv_logits." for s in STAGES)),
    )
)


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of a file, with its name in the file."""

    name: str
    tensor: Tensor


def is_detectron2(names: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are those of a detectron2 detector, by the name of its backbone."""
    return any(MARK.match(name) for name in names)


def from_detectron2(tensors: Mapping[str, Tensor]) -> dict[str, SourceTensor]:
    """The tensors by mmdet's names; one tensor may have several."""
    placed: dict[str, SourceTensor] = {}
    for name, tensor in without_norms(tensors).items():
        for place in places(name.removeprefix("module.")):
            placed[place] = SourceTensor(name, tensor)
    return placed


def places(name: str) -> list[str]:
    """mmdet's names of a tensor; its own name if it has no counterpart."""
    if MARK.match(name):
        place = MARK.sub("backbone.", name)
        for theirs, ours in BACKBONE.items():
            place = place.replace(f"backbone.{theirs}", f"backbone.{ours}")
        return [place]
    for pattern, targets in PLACES:
        if match := pattern.match(name):
            found = match.groupdict()
            numbers = {
                "scale": int(found.get("scale") or 2) - 2,
                "layer": int(found.get("layer") or 1) - 1,
                "stage": int(found.get("stage") or 0),
            }
            return [target.format(**numbers) + name[match.end() :] for target in targets]
    return [name]


def without_norms(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every batch norm folded into the preceding convolution."""
    normed = {name.split(".norm.")[0] for name in tensors if ".norm." in name}
    kept = {name: tensor for name, tensor in tensors.items() if name.split(".norm.")[0] == name}
    for layer in normed:
        weight, bias = kept.pop(f"{layer}.weight", None), kept.pop(f"{layer}.bias", None)
        norm = [tensors.get(f"{layer}.norm.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        if weight is None or any(part is None for part in norm):
            continue
        scale, shift, mean, variance = (part.double() for part in norm if part is not None)
        factor = scale / torch.sqrt(variance + EPSILON)
        kept[f"{layer}.weight"] = (weight.double() * factor[:, None, None, None]).to(weight.dtype)
        before = torch.zeros_like(mean) if bias is None else bias.double()
        kept[f"{layer}.bias"] = ((before - mean) * factor + shift).to(weight.dtype)
    return kept
