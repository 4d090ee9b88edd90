"""Copy-paste of objects between training tiles (Ghiasi et al. 2021), for several modalities at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from ml_backend.detector.data.augmentation import Sample, band_slices
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.masks import BoolArray

RING = 3  # pixels around an object that give the height of its surroundings


def paste(target: Sample, source: Sample, modalities: tuple[ModalitySpec, ...], rng: np.random.Generator) -> Sample:
    """Paste a random subset of the source's objects onto the target; both have the same size.

    - Pixels replace pixels, in every modality that the target has. Where the target has no data it stays so: if
      validity changed at an object's outline, it would reveal the object. An object is only pasted if the source has
      data under all of it, in every modality that the target has data in there.
    - Heights (:attr:`ModalitySpec.is_height`) are shifted so that the median height of the object's surroundings, a
      ring of three pixels, is that of the target: the object keeps its depth, and no step arises at its outline.
    - Objects and ignored regions of the target lose the pixels that are covered; what is left of them is treated
      like any other object (see :func:`~ml_backend.detector.data.samples.training_sample`).
    - Ignored regions of the source are never pasted.
    """
    planes = slice(-len(modalities), None)
    has = target.pixels[planes].numpy() > 0
    knows = source.pixels[planes].numpy() > 0
    pixels = target.pixels.clone()
    masks, instances = [], []
    covered = np.zeros(target.size, dtype=bool)
    chosen = rng.random(len(source.instances)) < 0.5
    for instance, mask, is_chosen in zip(source.instances, source.masks, chosen, strict=True):
        visible = mask & has.any(axis=0) & ~covered
        if not is_chosen or instance.ignored or not visible.any() or (has & ~knows)[:, visible].any():
            continue
        ring = ndimage.binary_dilation(mask, iterations=RING) & ~mask
        for position, (modality, bands) in enumerate(zip(modalities, band_slices(modalities), strict=True)):
            place = torch.from_numpy(visible & has[position])
            values = source.pixels[bands]
            if modality.is_height:
                around = torch.from_numpy(ring & has[position] & knows[position])
                values = values + _step(target.pixels[bands], values, around)
            pixels[bands] = torch.where(place, values, pixels[bands])
        covered |= visible
        masks.append(visible)
        instances.append(instance)
    if not masks:
        return target
    left: BoolArray = target.masks & ~covered
    return replace(
        target, pixels=pixels, instances=(*target.instances, *instances), masks=np.concatenate([left, np.stack(masks)])
    )


def _step(target: torch.Tensor, source: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    """Median height difference, target minus source, in the pixels ``around``: [C, 1, 1]; 0 if there are none."""
    if not around.any():
        return torch.zeros(len(target), 1, 1)
    difference: torch.Tensor = target[:, around].median(dim=1).values - source[:, around].median(dim=1).values
    return difference[:, None, None]
