"""Training batches as a pure function of (seed, step), so that an interrupted training resumes exactly.

Step ``i`` draws its tiles from a sequence fixed by the seed, and augments each with a generator seeded by
(seed, position in the sequence). There is no loader state to save, and workers can prefetch freely.

Tiles of a batch are padded to one shape, so batches are made of tiles of similar shape: the sequence is sorted by shape
within blocks of :data:`BLOCK` batches, and the oblong tiles of a batch all have the same orientation.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ml_backend.detector.chips import ChipInput, network_input, network_size, read_tile
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.data.augmentation import (
    Sample,
    hide_modalities,
    jitter,
    scale_jitter,
    turn,
)
from ml_backend.detector.data.pasting import paste
from ml_backend.detector.data.samples import training_sample
from ml_backend.detector.dataset import DatasetSpec, Tile
from ml_backend.detector.masks import resize_nearest, segmentation_mask
from ml_backend.detector.model.build import PAD_DIVISOR

CACHE_BYTES = 1 << 30
BLOCK = 32  # batches: enough to group similar shapes, few enough that all shapes occur in any short stretch of steps
UPRIGHT = 1  # distinguishes the random generator of a batch from those of tiles


class TrainingBatches(Dataset[dict[str, Any]]):
    """Batches of one training: ``batches[i]`` is that of step ``i``, in mmdet's format.

    Args:
        dataset: to take tiles from.
        config: of the training: batch size and augmentation.
        slots: which of a step's tiles to return, by default all; processes that train together divide them.
    """

    def __init__(self, dataset: DatasetSpec, config: DetectorConfig, slots: range | None = None) -> None:
        self.dataset = dataset
        self.config = config
        self.slots = range(config.step_tiles) if slots is None else slots
        self.modalities = tuple(dataset.modality(name) for name in config.modalities)
        self.tiles = dataset.usable_tiles("train")
        self.reduction = config.reduction(dataset.longest_side)
        self.order = by_shape(draw_order(self.tiles, config), self._padded_sizes(), config)
        self.paste_sources = np.flatnonzero([any(not i.ignored for i in tile.instances) for tile in self.tiles])
        self._chips: OrderedDict[int, ChipInput] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return self.config.iterations

    def __getitem__(self, step: int) -> dict[str, Any]:
        first = step * self.config.step_tiles
        samples = [self._sample(first + slot) for slot in self.slots]
        return {"inputs": [inputs for inputs, _ in samples], "data_samples": [sample for _, sample in samples]}

    def _sample(self, position: int) -> tuple[torch.Tensor, Any]:
        rng = np.random.default_rng((self.config.seed, position))
        upright = np.random.default_rng((self.config.seed, position // self.config.batch_size, UPRIGHT)).random() < 0.5
        index = int(self.order[position])
        chip = hide_modalities(self._chip(index), self.config, rng)
        sample = self._rescaled(self._read(index, chip), rng)
        if self.config.copy_paste and rng.random() < self.config.copy_paste:
            sample = self._with_pasted(sample, rng)
        sample = turn(jitter(sample, self.modalities, self.config, rng), rng, upright)
        tile = replace(self.tiles[index], instances=sample.instances)
        return sample.pixels, training_sample(tile, sample.masks, self.config.min_instance_pixels)

    def _read(self, index: int, chip: ChipInput) -> Sample:
        """A tile at the network's resolution."""
        instances = self.tiles[index].instances
        pixels, (height, width) = network_input(chip, self.modalities, self.reduction)
        masks = [segmentation_mask(i.segmentation, height, width) for i in instances]
        stacked = np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool)
        return Sample(pixels, instances, resize_nearest(stacked, (pixels.shape[1], pixels.shape[2])))

    def _padded_sizes(self) -> npt.NDArray[np.int64]:
        """(longer, shorter) side of every tile in network pixels after padding, int64 [n, 2]."""
        sizes = [network_size((tile.height, tile.width), self.reduction) for tile in self.tiles]
        sides = np.sort(np.asarray(sizes, dtype=np.int64).reshape(-1, 2), axis=1)[:, ::-1]
        return -(-sides // PAD_DIVISOR) * PAD_DIVISOR

    def _rescaled(self, sample: Sample, rng: np.random.Generator, size: tuple[int, int] | None = None) -> Sample:
        """Apply scale jitter, if it is on; with `size` (h, w), also crop or pad to it."""
        if self.config.scale_jitter == (1.0, 1.0) and size in (None, sample.size):
            return sample
        return scale_jitter(sample, self.modalities, size or sample.size, self.config.scale_jitter, rng)

    def _with_pasted(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Paste some objects of a random tile, itself rescaled and turned, onto this one."""
        index = int(rng.choice(self.paste_sources))
        source = turn(self._read(index, self._chip(index)), rng)
        return paste(sample, self._rescaled(source, rng, sample.size), self.modalities, rng)

    def _chip(self, index: int) -> ChipInput:
        """The tile's pixels, cached up to :data:`CACHE_BYTES`."""
        if index not in self._chips:
            chip = read_tile(self.dataset, self.modalities, self.tiles[index])
            size = sum(array.nbytes for array in chip.arrays.values())
            if self._cached_bytes + size > CACHE_BYTES:
                return chip
            self._chips[index] = chip
            self._cached_bytes += size
        return self._chips[index]


def by_shape(
    order: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], config: DetectorConfig
) -> npt.NDArray[np.int64]:
    """Reorder tiles so that batches have similar shapes: blocks are sorted by shape, and their batches shuffled.

    Args:
        order: indices of tiles, batch after batch.
        sizes: (longer, shorter) padded side of every tile [n, 2]; if all are equal, the order is unchanged.
        config: of the training.
    """
    if len(np.unique(sizes, axis=0)) < 2:
        return order
    rng = np.random.default_rng((config.seed, len(order), len(sizes)))
    blocks = []
    for start in range(0, len(order), BLOCK * config.batch_size):
        block = order[start : start + BLOCK * config.batch_size]
        alike = block[np.lexsort(sizes[block].T)].reshape(
            -1, config.batch_size
        )  # a stable sort: tiles of equal shape stay shuffled
        blocks.append(rng.permutation(alike).ravel())
    return np.concatenate(blocks)


def draw_order(tiles: tuple[Tile, ...], config: DetectorConfig) -> npt.NDArray[np.int64]:
    """Indices of the tiles of all steps: tiles with and without objects, each in shuffled rounds, mixed by share."""
    rng = np.random.default_rng((config.seed, len(tiles)))
    has_objects = np.array([any(not i.ignored for i in tile.instances) for tile in tiles])
    groups = {True: np.flatnonzero(has_objects), False: np.flatnonzero(~has_objects)}
    total = config.iterations * config.step_tiles
    full = rng.random(total) >= (config.empty_share if len(groups[False]) else 0.0)
    order = np.empty(total, dtype=np.int64)
    for kind, members in groups.items():
        needed = int((full == kind).sum())
        rounds = -(-needed // max(len(members), 1))
        shuffled = [rng.permutation(members) for _ in range(rounds)]
        order[full == kind] = np.concatenate([*shuffled, members[:0]])[:needed]
    return order
