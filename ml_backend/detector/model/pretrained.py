"""Initialising the backbones with published MViTv2 weights.

Supported are files of mmpretrain (``backbone.*``, or the backbone alone), of mmdet (``backbone.*``), of detectron2
(``backbone.bottom_up.*``, see :mod:`.detectron2`), of the MViT authors (the backbone alone) and of timm's ``mvitv2_*``;
safetensors, PyTorch files of tensors, and pickles of numpy arrays (:mod:`.pickled`). Neck and heads of detectors are
loaded, too, each completely or not at all; only layers whose size depends on the number of classes may differ. Every
modality's backbone gets the same weights, adapted to it:

- a first convolution for another number of bands becomes the mean kernel of the given one, repeated for each band and
  scaled by given bands / own bands, so that a signal common to all bands keeps its magnitude;
- tables of relative positions of another length (another image size) are interpolated, as MViT does for other inputs.

Output norms of scales that the given model does not return keep their initial weights, as do the fusion and other parts
that are not in the file. All other tensors of a backbone must be present.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.errors import CheckpointError
from ml_backend.detector.model.detectron2 import SourceTensor, from_detectron2, is_detectron2
from ml_backend.detector.model.pickled import read_arrays

HUB = "hf://"
NESTED = ("state_dict", "model", "model_state")
BACKBONE = "backbone."
HEADS = ("neck.", "rpn_head.", "roi_head.")
HEAD = re.compile(r"neck|rpn_head|roi_head\.(bbox|mask)_head\.\d+")  # parts that are loaded completely or not at all
BY_CLASS = re.compile(r"\.(fc_cls|fc_reg|conv_logits)\.")  # layers whose size depends on the number of classes
PICKLES = (".pkl", ".pickle")
BRANCH = re.compile(r"backbone\.branches\.[^.]+\.")
OUTPUT_NORM = re.compile(r"norm\d\.")
TIMM_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
TIMM_NAMES = {
    "patch_embed.proj.": "patch_embed.projection.",
    "shortcut_proj_attn.": "proj.",
    "shortcut_proj_mlp.": "proj.",
}
OBJECTS = "it holds Python objects beside its tensors, whose code reading would run"
# what reading a file that is damaged or of another format may raise
UNREADABLE = (
    *(SafetensorError, pickle.UnpicklingError, struct.error, EOFError, OSError),
    *(RuntimeError, LookupError, ValueError, TypeError, AttributeError),
)
Weights = Mapping[str, Tensor]
T = TypeVar("T")


def load_pretrained(model: nn.Module, config: DetectorConfig) -> dict[str, Any]:
    """Load the weights of ``config.pretrained`` into a new model.

    Args:
        model: the detector, changed in place.
        config: its configuration.

    Returns:
        For the card, ``{"pretrained": {source, sha256, layout, tensors, fresh, unused}}``: the number of tensors of the
        model that were set, the numbers that were not by part, and the unused tensors of the file, by their names in
        it. Empty if no weights are configured.

    Raises:
        CheckpointError: the file cannot be downloaded or read, or its backbone does not fit the model.
    """
    source = config.pretrained
    if not source:
        return {}
    file = _fetch(source) if source.startswith(HUB) else Path(source)
    layout, given = placed(_read(file))
    own = model.state_dict()
    found: dict[str, Tensor] = {}
    for name, tensor in own.items():
        place = BRANCH.sub(BACKBONE, name)
        if place in given and (place != name or name.startswith(HEADS)):
            fitted = fit(place, given[place].tensor, tensor)
            if fitted is not None:
                found[name] = fitted
    found = _whole_heads(found, own)
    lacking = [n for n in own if BRANCH.match(n) and n not in found and not OUTPUT_NORM.match(BRANCH.sub("", n))]
    if lacking:
        raise CheckpointError(
            f"{source} does not fit a backbone of size '{config.size}' ({len(lacking)} tensors missing or different in "
            f"shape, first '{lacking[0]}'): give MViTv2 weights of that size as detectron2, mmpretrain, mmdet or timm "
            "publish them."
        )
    model.load_state_dict(found, strict=False)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "pretrained": {
            "source": source if source.startswith(HUB) else file.name,
            "sha256": digest,
            "layout": layout,
            "tensors": len(found),
            "fresh": dict(sorted(Counter(_part(name) for name in own.keys() - found.keys()).items())),
            "unused": sorted(
                {named.name for named in given.values()} - {given[BRANCH.sub(BACKBONE, name)].name for name in found}
            ),
        }
    }


def placed(tensors: Weights) -> tuple[str, dict[str, SourceTensor]]:
    """The layout of the tensors, and the tensors by mmdet's names (``backbone.*``)."""
    if is_detectron2(tensors):
        return "detectron2", from_detectron2(tensors)
    layout = "timm" if any(map(TIMM_BLOCK.search, tensors)) else "mmdet"
    places = mmdet_names({name: name for name in tensors})
    return layout, {place: SourceTensor(name, tensors[name]) for place, name in places.items()}


def _whole_heads(found: dict[str, Tensor], own: Weights) -> dict[str, Tensor]:
    """The tensors without those of incomplete heads."""
    heads = {name: match[0] for name in own if (match := HEAD.match(name))}
    broken = {head for name, head in heads.items() if name not in found and not BY_CLASS.search(name)}
    return {name: tensor for name, tensor in found.items() if heads.get(name) not in broken}


def mmdet_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors of a file of mmpretrain, mmdet or timm by mmdet's names (``backbone.*``)."""
    depths: dict[int, int] = {}
    for match in filter(None, map(TIMM_BLOCK.search, tensors)):
        stage, block = map(int, match.groups())
        depths[stage] = max(depths.get(stage, 0), block + 1)

    def number(match: re.Match[str]) -> str:
        stage, block = map(int, match.groups())
        return f"blocks.{sum(depths[s] for s in range(stage)) + block}."

    bare = not any(name.startswith(BACKBONE) for name in tensors)
    named = {}
    for name, tensor in tensors.items():
        place = TIMM_BLOCK.sub(number, name)
        for theirs, ours in TIMM_NAMES.items():
            place = place.replace(theirs, ours)
        place = re.sub(r"^norm\.", "norm3.", place)
        named[BACKBONE + place if bare and not name.startswith("head.") else place] = tensor
    return named


def fit(name: str, given: Tensor, own: Tensor) -> Tensor | None:
    """A given tensor in the shape of the model's own, or None if it cannot be converted.

    Args:
        name: identifies the first convolution and relative positions.
        given: from the file.
        own: the model's.
    """
    if name == BACKBONE + "patch_embed.projection.weight" and given.shape[::2] == own.shape[::2]:
        given = fit_bands(given, own.shape[1])
    if "rel_pos_" in name and given.shape[1:] == own.shape[1:] and len(given) != len(own):
        given = F.interpolate(given.T[None].float(), size=len(own), mode="linear")[0].T
    return given.to(own.dtype) if given.shape == own.shape else None


def fit_bands(kernel: Tensor, bands: int) -> Tensor:
    """A first convolution [E, C, k, k] for another number of bands: the mean kernel for each, scaled by C / bands.

    Returns [E, bands, k, k].
    """
    if kernel.shape[1] == bands:
        return kernel
    return kernel.mean(dim=1, keepdim=True).repeat(1, bands, 1, 1) * (kernel.shape[1] / bands)


def _part(name: str) -> str:
    """The part that a tensor belongs to: a modality's backbone, the fusion, the neck, or a head."""
    return name.removeprefix(BACKBONE).removeprefix("branches.").split(".")[0]


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, read without executing code."""
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        if file.suffix in PICKLES and not zipfile.is_zipfile(file):
            content: Any = read_arrays(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing: give the file of pretrained weights, or {HUB}owner/repository/file."
        ) from None
    except UNREADABLE as error:
        reason = str(error).split("\n")[0]
        if "weights_only" in str(error):  # torch's message advises to trust the file and execute its code
            reason = OBJECTS if "unsupported global" in str(error).lower() else "it is not a file of tensors by PyTorch"
        raise CheckpointError(
            f"{file} is not a readable file of weights ({reason}): give one that holds nothing but tensors."
        ) from None
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {name: _tensor(value) for name, value in named if isinstance(value, Tensor | np.ndarray)}
    if not tensors:
        raise CheckpointError(f"{file} holds no tensors by name: give a state dict.")
    return tensors


def _tensor(value: Tensor | npt.NDArray[Any]) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))


def _fetch(address: str) -> Path:
    """A file of the Hugging Face hub, from its local cache if it is there."""
    owner, _, rest = address.removeprefix(HUB).partition("/")
    repository, _, name = rest.partition("/")
    if not name:
        raise CheckpointError(f"'{address}' names no file: write {HUB}owner/repository/file.")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    except ImportError:
        raise CheckpointError(
            f"{address} needs the package huggingface_hub: install it, or download the file and give its path."
        ) from None
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", name))
    except (EntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{address} cannot be fetched ({reason}): check the address and the connection, or download the file "
            "elsewhere and give its path."
        ) from None
