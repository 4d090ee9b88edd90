"""Training batches as a pure function of (seed, step): what makes an interrupted training resume exactly.

Step ``i`` draws its tiles from a sequence fixed by the seed, and augments each with a generator seeded by
(seed, position in the sequence). No loader state exists, so none has to be saved, and workers can prefetch freely.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ml_backend.detector.chips import ChipInput, network_input, read_tile
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import DatasetSpec, ModalitySpec, Tile
from ml_backend.detector.masks import BoolArray, segmentation_mask
from ml_backend.detector.openmmlab import BitmapMasks, DetDataSample, InstanceData

CACHE_BYTES = 1 << 30
MIN_INSTANCE_PIXELS = 4


class TrainingBatches(Dataset[dict[str, Any]]):
    """Batches of one training: ``batches[i]`` is what step ``i`` sees, in mmdet's format."""

    def __init__(self, dataset: DatasetSpec, config: DetectorConfig) -> None:
        self.dataset = dataset
        self.config = config
        self.modalities = tuple(dataset.modality(name) for name in config.modalities)
        self.tiles = dataset.usable_tiles("train")
        self.order = draw_order(self.tiles, config)
        self._chips: OrderedDict[int, ChipInput] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return self.config.iterations

    def __getitem__(self, step: int) -> dict[str, Any]:
        first = step * self.config.batch_size
        samples = [self._sample(first + slot) for slot in range(self.config.batch_size)]
        return {"inputs": [inputs for inputs, _ in samples], "data_samples": [sample for _, sample in samples]}

    def _sample(self, position: int) -> tuple[torch.Tensor, Any]:
        rng = np.random.default_rng((self.config.seed, position))
        index = int(self.order[position])
        tile = self.tiles[index]
        chip = hide_modalities(self._chip(index), self.config, rng)
        inputs, (height, width) = network_input(chip, self.modalities, self.config.image_size)
        jitter(inputs, self.modalities, self.config.radiometric_jitter, rng)
        masks = [segmentation_mask(i.segmentation, height, width) for i in tile.instances]
        stacked = np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool)
        stacked = resize_nearest(stacked, (inputs.shape[1], inputs.shape[2]))
        symmetry = int(rng.integers(8))
        inputs = torch.from_numpy(apply_symmetry(inputs.numpy(), symmetry))
        return inputs, training_sample(tile, apply_symmetry(stacked, symmetry))

    def _chip(self, index: int) -> ChipInput:
        """The tile's pixels, from memory where they fit."""
        if index not in self._chips:
            chip = read_tile(self.dataset, self.modalities, self.tiles[index])
            size = sum(array.nbytes for array in chip.arrays.values())
            if self._cached_bytes + size > CACHE_BYTES:
                return chip
            self._chips[index] = chip
            self._cached_bytes += size
        return self._chips[index]


def draw_order(tiles: tuple[Tile, ...], config: DetectorConfig) -> npt.NDArray[np.int64]:
    """Indices of the tiles of all steps: tiles with objects and empty ones each in shuffled rounds, mixed by share."""
    rng = np.random.default_rng((config.seed, len(tiles)))
    has_objects = np.array([any(not i.ignored for i in tile.instances) for tile in tiles])
    groups = {True: np.flatnonzero(has_objects), False: np.flatnonzero(~has_objects)}
    total = config.iterations * config.batch_size
    full = rng.random(total) >= (config.empty_share if len(groups[False]) else 0.0)
    order = np.empty(total, dtype=np.int64)
    for kind, members in groups.items():
        needed = int((full == kind).sum())
        rounds = -(-needed // max(len(members), 1))
        shuffled = [rng.permutation(members) for _ in range(rounds)]
        order[full == kind] = np.concatenate([*shuffled, members[:0]])[:needed]
    return order


def hide_modalities(chip: ChipInput, config: DetectorConfig, rng: np.random.Generator) -> ChipInput:
    """Modality dropout: now and then hide modalities other than the anchor, so that the model copes without them."""
    dice = rng.random(len(config.modalities))
    hidden = {
        name
        for name, value in zip(config.modalities, dice, strict=True)
        if name != config.anchor and value < config.modality_dropout
    }
    kept = {name: array for name, array in chip.arrays.items() if name not in hidden}
    return ChipInput(kept, chip.valid) if kept else chip


def jitter(
    inputs: torch.Tensor, modalities: tuple[ModalitySpec, ...], strength: float, rng: np.random.Generator
) -> None:
    """Random gain and offset per modality, in place, on normalised valid pixels of inputs [C + M, H, W]."""
    start = 0
    for position, modality in enumerate(modalities):
        bands = inputs[start : start + len(modality.bands)]
        gain, offset = 1 + strength * rng.standard_normal(), strength * rng.standard_normal()
        valid = inputs[position - len(modalities)]
        bands.mul_(gain).add_(offset * valid)
        start += len(modality.bands)


def apply_symmetry(array: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """One of the eight symmetries of the square (0..7) on the last two axes; 0 is the identity."""
    turned = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if symmetry >= 4 else turned)


def resize_nearest(masks: BoolArray, size: tuple[int, int]) -> BoolArray:
    """Masks [n, H, W] resampled to [n, h, w]."""
    if masks.shape[1:] == size:
        return masks
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int) for n, m in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows][:, :, columns]


def training_sample(tile: Tile, masks: BoolArray) -> Any:
    """mmdet's DetDataSample of a tile and the masks [n, H, W] of its instances, in their order.

    Instances marked as ignored, or too small to be seen, count neither as object nor as background.
    """
    height, width = masks.shape[1:]
    pixels = masks.sum(axis=(1, 2))
    learnt = np.array([not i.ignored for i in tile.instances], dtype=bool) & (pixels >= MIN_INSTANCE_PIXELS)
    ignored = ~learnt & (pixels > 0)
    labels = np.array([i.class_index for i in tile.instances], dtype=np.int64)
    sample = DetDataSample(metainfo=image_meta((height, width), (height, width)))
    sample.gt_instances = InstanceData(
        bboxes=boxes_of(masks[learnt]),
        labels=torch.from_numpy(labels[learnt]),
        masks=BitmapMasks(masks[learnt].astype(np.uint8), height, width),
    )
    sample.ignored_instances = InstanceData(bboxes=boxes_of(masks[ignored]), labels=torch.from_numpy(labels[ignored]))
    return sample


def image_meta(own: tuple[int, int], network: tuple[int, int]) -> dict[str, Any]:
    """What mmdet needs to know: the tile's own (H, W) and what the network sees of it."""
    return {
        "ori_shape": own,
        "img_shape": network,
        "scale_factor": (network[1] / own[1], network[0] / own[0]),
    }


def boxes_of(masks: BoolArray) -> torch.Tensor:
    """Tight boxes [n, 4] (xyxy, pixel corners) around masks [n, H, W], none of them empty."""
    boxes = np.zeros((len(masks), 4), dtype=np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return torch.from_numpy(boxes)
