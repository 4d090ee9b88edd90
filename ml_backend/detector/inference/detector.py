"""A detector in memory: tiles in, instances with outlines and uncertainty out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from ml_backend.detector.calibration import Calibration
from ml_backend.detector.chips import ChipInput, chip_size, network_input
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.errors import DeviceError, PromptError
from ml_backend.detector.inference import network
from ml_backend.detector.inference.instances import Instance, instances_of
from ml_backend.detector.inference.limits import check_limits
from ml_backend.detector.inference.merging import merge
from ml_backend.detector.inference.prompts import Box, check_boxes
from ml_backend.detector.inference.results import Detection, TileResult
from ml_backend.detector.inference.symmetry import symmetries
from ml_backend.detector.inference.windows import DEFAULT_WINDOW, Window, covered, plan_windows, window_around
from ml_backend.detector.masks import BoolArray, FloatArray

Progress = Callable[[float, str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _View:
    """A window of one of the chips."""

    chip: int
    window: Window


@dataclass
class _Tile:
    """What is known of a chip so far: instances per window, and the sums that make the embedding."""

    found: list[tuple[Window, list[Instance]]] = field(default_factory=list)
    embeddings: list[FloatArray] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    seconds: float = 0.0


class Detector:
    """A model ready to predict; keeps its weights on the device.

    Attributes:
        window: (height, width) of the largest tile that goes through the network whole; larger ones are cut.
    """

    def __init__(
        self,
        model: nn.Module,
        config: DetectorConfig,
        classes: Sequence[str],
        modalities: Sequence[ModalitySpec],
        device: torch.device,
        window: tuple[int, int] = (DEFAULT_WINDOW, DEFAULT_WINDOW),
        calibration: Calibration = Calibration(),  # noqa: B008  (immutable)
    ) -> None:
        self.model = model
        self.calibration = calibration
        self.config = config
        self.classes = tuple(classes)
        self.modalities = tuple(modalities)
        self.device = device
        self.window = window
        self._fitting: dict[tuple[int, int], int] = {}  # tiles of a size that the GPU's memory held at once

    def predict(
        self,
        chips: Sequence[ChipInput],
        *,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        tolerance: float = 0.5,
        min_pixels: int = 10,
        batch_size: int = 8,
        window: int | None = None,
        overlap: int | None = None,
        tta: str = "none",
        progress: Progress | None = None,
    ) -> list[TileResult]:
        """Predict tiles.

        Args:
            chips: tiles of any size; those of equal size go through the network together.
            score_threshold: instances below are left out (the network itself drops those below 0.05).
            max_detections: at most this many instances per window of a tile (the network itself keeps 100).
            tolerance: outlines may be simplified by this many pixels.
            min_pixels: instances of fewer pixels are left out; so are those that lie wholly where no modality has data.
            batch_size: tiles per forward pass; halved by itself where the GPU's memory does not hold so many.
            window: a larger tile is cut into windows of this many pixels, and what they find is joined
                (:mod:`.merging`); None takes :attr:`window`.
            overlap: pixels that neighbouring windows share at least; None takes a fourth of the window.
            tta: test-time augmentation, see :mod:`.network`: ``none``, ``flips`` (4 views) or ``d4`` (8 views).
            progress: told the share done and a line of text after every forward pass.

        Returns:
            One result per chip, in order.

        Raises:
            DatasetError: a chip has none of the model's modalities or contradictory shapes.
            ConfigError: thresholds, sizes, window, overlap or augmentation make no sense.
            DeviceError: the GPU's memory does not hold a single tile.
        """
        check_limits(
            tolerance=tolerance,
            score_threshold=score_threshold,
            min_pixels=min_pixels,
            max_detections=max_detections,
            batch_size=batch_size,
        )
        seen_as = symmetries(tta)
        sizes = [chip_size(chip, self.modalities) for chip in chips]
        own = self.window if window is None else (window, window)
        shared = min(own) // 4 if overlap is None else overlap
        plans = [self._plan(chip, plan_windows(size, own, shared)) for chip, size in zip(chips, sizes, strict=True)]
        views = [_View(chip, part) for chip, parts in enumerate(plans) for part in parts]
        tiles = [_Tile() for _ in chips]
        say = progress or (lambda share, text: None)

        def look(batch: Sequence[_View]) -> None:
            started = time.perf_counter()
            prepared = [self._prepare(chips[view.chip], view.window) for view in batch]
            found, embeddings = network.find(self.model, prepared, seen_as)
            seconds = (time.perf_counter() - started) / len(batch)
            for view, instances, embedding in zip(batch, found, embeddings, strict=True):
                tile, part = tiles[view.chip], view.window
                moved = [instance.moved(part.left, part.top) for instance in instances_of(instances)]
                tile.found.append((part, moved))
                tile.embeddings.append(embedding)
                # only where there is something to weigh against, because it takes time
                several = len(plans[view.chip]) > 1
                tile.weights.append(self._valid_pixels(chips[view.chip], part) if several else 1)
                tile.seconds += seconds
            done = sum(len(tile.found) for tile in tiles)
            say(done / len(views), f"window {done}/{len(views)}")

        self._each_batch(views, batch_size, look)

        def outlined(tile: _Tile, chip: ChipInput, size: tuple[int, int]) -> TileResult:
            started = time.perf_counter()
            instances = tile.found[0][1] if len(tile.found) == 1 else merge(tile.found, size)
            likely = (instance.largest_part() for instance in instances if instance.score >= score_threshold)
            kept = (i for i in likely if i.pixels >= min_pixels and (i.mask & self._covered(chip, i.box)).any())
            most = max_detections * len(tile.found)
            detections = tuple(self._outline(instance, tolerance) for instance in islice(kept, most))
            seconds = tile.seconds + time.perf_counter() - started
            return TileResult(detections, _mean(tile.embeddings, tile.weights), seconds)

        return [outlined(tile, chip, size) for tile, chip, size in zip(tiles, chips, sizes, strict=True)]

    def segment(
        self,
        chip: ChipInput,
        boxes: Sequence[Box],
        *,
        class_name: str | None = None,
        tolerance: float = 0.5,
        tta: str = "none",
    ) -> list[Detection]:
        """Say what is in boxes that somebody drew: for interactive use.

        The masks are those of the boxes as given (clipped to the tile); nothing is suppressed. The cascade's stages
        start from the given boxes too; what they make of them is in ``stage_boxes``.

        Args:
            chip: a tile of any size; of a large one only windows around the boxes are looked at.
            boxes: x1, y1, x2, y2 in tile pixels.
            class_name: what it is; None takes the most probable class. The score is that class's.
            tolerance: outlines may be simplified by this many pixels.
            tta: as in :meth:`predict`.

        Returns:
            One detection per box, in order; without rings where the box holds nothing.

        Raises:
            PromptError: a box is not a box or lies outside the tile, or the class is unknown.
            ConfigError: the tolerance or augmentation makes no sense.
            DatasetError: see :meth:`predict`.
            DeviceError: see :meth:`predict`.
        """
        check_limits(tolerance=tolerance)
        if class_name is not None and class_name not in self.classes:
            raise PromptError(f"The class '{class_name}' is unknown to the model: use {', '.join(self.classes)}.")
        seen_as = symmetries(tta)
        size = chip_size(chip, self.modalities)
        checked = check_boxes(boxes, size)
        by_window: dict[Window, list[int]] = {}
        for index, box in enumerate(checked.tolist()):
            by_window.setdefault(window_around(box, size, self.window), []).append(index)
        answers: dict[int, Detection] = {}

        def look(batch: Sequence[_View]) -> None:
            for view in batch:
                part, indices = view.window, by_window[view.window]
                origin = np.array([part.left, part.top] * 2, dtype=np.float32)
                given = torch.from_numpy(checked[indices] - origin)
                label = None if class_name is None else torch.full((len(given),), self.classes.index(class_name))
                (found,) = network.judge(self.model, [self._prepare(chip, part)], [given], [label], seen_as)
                for index, instance in zip(indices, instances_of(found), strict=True):
                    answers[index] = self._outline(instance.moved(part.left, part.top), tolerance)

        self._each_batch([_View(0, part) for part in by_window], 1, look)
        return [answers[index] for index in range(len(boxes))]

    def _outline(self, instance: Instance, tolerance: float) -> Detection:
        chance = self.calibration.probability(instance.score)
        return replace(instance.detection(self.classes, tolerance), probability=chance)

    def _plan(self, chip: ChipInput, windows: list[Window]) -> list[Window]:
        """Leave out windows without data; one stays in any case."""
        if len(windows) == 1:
            return windows
        return [window for window in windows if self._valid_pixels(chip, window)] or windows[:1]

    def _valid_pixels(self, chip: ChipInput, window: Window) -> int:
        return int(np.count_nonzero(self._covered(chip, (window.left, window.top, window.right, window.bottom))))

    def _covered(self, chip: ChipInput, box: tuple[int, int, int, int]) -> BoolArray:
        """Which pixels of a box have data in any modality."""
        return covered(Window(*box).of(chip), tuple(modality.name for modality in self.modalities))

    def _prepare(self, chip: ChipInput, window: Window) -> network.Prepared:
        return network_input(window.of(chip), self.modalities, self.config.image_size)

    def _each_batch(self, views: Sequence[_View], batch_size: int, look: Callable[[Sequence[_View]], None]) -> None:
        """Look at all views in evaluation mode, with smaller batches from where the memory does not suffice."""
        was_training = self.model.training
        self.model.eval()
        try:
            for size, same in _by_size(views):
                start = 0
                while start < len(same):
                    batch = same[start : start + min(batch_size, self._fitting.get(size, batch_size))]
                    try:
                        look(batch)
                    except torch.cuda.OutOfMemoryError:
                        self._halve(size, len(batch))
                    else:
                        start += len(batch)
        finally:
            self.model.train(was_training)

    def _halve(self, size: tuple[int, int], failed: int) -> None:
        what = f"of {size[1]} x {size[0]} pixels"
        if failed == 1:
            raise DeviceError(
                f"The GPU's memory does not hold a single tile {what}: predict with a smaller window or on the CPU."
            ) from None
        self._fitting[size] = failed // 2
        torch.cuda.empty_cache()
        log.warning(
            "The GPU's memory does not hold %d tiles %s at once: going on with a batch size of %d.",
            failed, what, self._fitting[size],
        )  # fmt: skip


def _by_size(views: Iterable[_View]) -> Iterator[tuple[tuple[int, int], list[_View]]]:
    """Views of equal size: a tile's result must not depend on padding towards its neighbours'."""
    groups: dict[tuple[int, int], list[_View]] = {}
    for view in views:
        groups.setdefault(view.window.size, []).append(view)
    yield from groups.items()


def _mean(embeddings: Sequence[FloatArray], weights: Sequence[int]) -> FloatArray:
    if len(embeddings) == 1:
        return embeddings[0]
    mean: Any = np.average(embeddings, axis=0, weights=weights if any(weights) else None)
    array: FloatArray = mean.astype(np.float32)
    return array
