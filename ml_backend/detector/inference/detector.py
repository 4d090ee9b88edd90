"""A detector in memory: tiles in, instances with outlines and uncertainty out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from ml_backend.detector.calibration import Calibration
from ml_backend.detector.chips import ChipInput, chip_size, network_input
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.errors import DeviceError, PromptError
from ml_backend.detector.inference import network
from ml_backend.detector.inference.arguments import Box, check_boxes, check_limits
from ml_backend.detector.inference.instances import DetectedInstance, instances_of
from ml_backend.detector.inference.merging import tile_instances
from ml_backend.detector.inference.results import Detection, TileResult
from ml_backend.detector.inference.suppression import DEFAULT_MAX_OVERLAP
from ml_backend.detector.inference.symmetry import symmetries
from ml_backend.detector.inference.window_result import WindowResult
from ml_backend.detector.inference.windows import (
    DEFAULT_WINDOW,
    InMemory,
    Pixels,
    Window,
    WindowChip,
    covered,
    plan_windows,
    window_around,
)
from ml_backend.detector.masks import FloatArray
from ml_backend.detector.progress import Progress

T = TypeVar("T")
log = logging.getLogger(__name__)


class Detector:
    """A model ready to predict; keeps its weights on the device.

    Attributes:
        window: (height, width) of the largest tile that goes through the network whole; larger ones are cut.
        reduction: ground pixels per network pixel that it was trained at; tiles and windows are resampled by it.
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
        reduction: float = 1.0,
    ) -> None:
        self.model = model
        self.calibration = calibration
        self.config = config
        self.classes = tuple(classes)
        self.modalities = tuple(modalities)
        self.device = device
        self.window = window
        self.reduction = reduction
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
        max_overlap: float | None = None,
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
            max_overlap: of two instances of a class the less certain is left out when both cover more than this share
                of the smaller one; None takes what validation chose.
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
            max_overlap=self.max_overlap(max_overlap),
            batch_size=batch_size,
        )
        sizes = [chip_size(chip, self.modalities) for chip in chips]
        plans = [self._plan(chip, self.windows(size, window, overlap)) for chip, size in zip(chips, sizes, strict=True)]
        parts = [part for plan in plans for part in plan]
        tile_of = [tile for tile, plan in enumerate(plans) for _ in plan]
        shown: list[list[WindowResult]] = [[] for _ in chips]
        for done, (index, seen) in enumerate(self.look_at_windows(parts, batch_size=batch_size, tta=tta), start=1):
            shown[tile_of[index]].append(seen)
            if progress:
                progress(done / len(parts), f"window {done}/{len(parts)}")

        def outlined(seen: list[WindowResult], size: tuple[int, int]) -> TileResult:
            started = time.perf_counter()
            kept = tile_instances(
                seen,
                size,
                score_threshold=score_threshold,
                min_pixels=min_pixels,
                max_overlap=self.max_overlap(max_overlap),
            )
            best = sorted(kept, key=lambda instance: -instance.score)[: max_detections * len(seen)]
            detections = tuple(self.outline(instance, tolerance) for instance in best)
            seconds = sum(one.seconds for one in seen) + time.perf_counter() - started
            return TileResult(detections, mean_embedding(seen), seconds)

        return [outlined(seen, size) for seen, size in zip(shown, sizes, strict=True)]

    def windows(self, size: tuple[int, int], window: int | None = None, overlap: int | None = None) -> list[Window]:
        """The windows that a tile of a size (height, width) is looked at in, row by row.

        Raises:
            ConfigError: window or overlap make no sense.
        """
        own = self.window if window is None else (window, window)
        return plan_windows(size, own, min(own) // 4 if overlap is None else overlap)

    def max_overlap(self, wanted: float | None = None) -> float:
        """The share of the smaller of two instances that both are kept with: what is asked for, or validation chose."""
        return next(value for value in (wanted, self.calibration.max_overlap, DEFAULT_MAX_OVERLAP) if value is not None)

    def look_at_windows(
        self, parts: Sequence[WindowChip], *, batch_size: int = 8, tta: str = "none"
    ) -> Iterator[tuple[int, WindowResult]]:
        """What each of some windows shows, with its index, as it becomes known; windows of equal size go together.

        Raises:
            ConfigError: there is no such augmentation.
            DatasetError: see :meth:`predict`.
            DeviceError: see :meth:`predict`.
        """
        views = symmetries(tta)

        def see(indices: Sequence[int]) -> list[tuple[int, WindowResult]]:
            started = time.perf_counter()
            batch = [parts[index] for index in indices]
            found, embeddings = network.detect(self.model, [self._prepare(part.chip) for part in batch], views)
            seconds = (time.perf_counter() - started) / len(batch)
            return [
                (
                    index,
                    WindowResult(part.window, self._tile_instances(part, instances), embedding, part.valid, seconds),
                )
                for index, part, instances, embedding in zip(indices, batch, found, embeddings, strict=True)
            ]

        yield from self._each_batch([part.window.size for part in parts], batch_size, see)

    def _tile_instances(self, part: WindowChip, found: Any) -> list[DetectedInstance]:
        """A window's instances in the tile's pixels, each with whether it lies on data."""
        instances = instances_of(found)
        known = covered(part.chip, self._names)
        placed = (replace(i, on_data=bool((i.mask & known[Window(*i.box).slices]).any())) for i in instances)
        return [instance.moved(part.window.left, part.window.top) for instance in placed]

    def segment(
        self,
        chip: ChipInput | Pixels,
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
            chip: a tile of any size; of a large one only windows around the boxes are read and looked at.
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
        views = symmetries(tta)
        pixels = InMemory(chip, chip_size(chip, self.modalities)) if isinstance(chip, ChipInput) else chip
        checked = check_boxes(boxes, pixels.size)
        by_window: dict[Window, list[int]] = {}
        for index, box in enumerate(checked.tolist()):
            by_window.setdefault(window_around(box, pixels.size, self.window), []).append(index)
        windows = list(by_window)

        def judge(numbers: Sequence[int]) -> list[tuple[int, Detection]]:
            answers = []
            for part in (windows[number] for number in numbers):
                indices = by_window[part]
                origin = np.array([part.left, part.top] * 2, dtype=np.float32)
                given = torch.from_numpy(checked[indices] - origin)
                label = None if class_name is None else torch.full((len(given),), self.classes.index(class_name))
                (found,) = network.segment_boxes(
                    self.model, [self._prepare(pixels.read(part))], [given], [label], views
                )
                for index, instance in zip(indices, instances_of(found), strict=True):
                    answers.append((index, self.outline(instance.moved(part.left, part.top), tolerance)))
            return answers

        answers = dict(self._each_batch([part.size for part in windows], 1, judge))
        return [answers[index] for index in range(len(boxes))]

    def outline(self, instance: DetectedInstance, tolerance: float) -> Detection:
        """An instance as users get it, with the chance that it is right."""
        chance = self.calibration.probability(instance.score)
        return replace(instance.detection(self.classes, tolerance), probability=chance)

    def window_chip(self, window: Window, chip: ChipInput) -> WindowChip:
        """What is in a window of a tile."""
        return WindowChip(window, chip, int(np.count_nonzero(covered(chip, self._names))))

    def _plan(self, chip: ChipInput, windows: list[Window]) -> list[WindowChip]:
        """Leave out windows without data; one stays in any case."""
        if len(windows) == 1:  # nothing to weigh it against, and counting takes time
            return [WindowChip(windows[0], chip, 1)]
        parts = [self.window_chip(window, window.of(chip)) for window in windows]
        return [part for part in parts if part.valid] or parts[:1]

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(modality.name for modality in self.modalities)

    def _prepare(self, chip: ChipInput) -> network.Prepared:
        return network_input(chip, self.modalities, self.reduction)

    def _each_batch(
        self, sizes: Sequence[tuple[int, int]], batch_size: int, look: Callable[[Sequence[int]], list[T]]
    ) -> Iterator[T]:
        """Look at all windows in evaluation mode, with smaller batches from where the memory does not suffice."""
        was_training = self.model.training
        self.model.eval()
        try:
            for size, same in _by_size(sizes):
                start = 0
                while start < len(same):
                    batch = same[start : start + min(batch_size, self._fitting.get(size, batch_size))]
                    try:
                        found = look(batch)
                    except torch.cuda.OutOfMemoryError:
                        self._halve(size, len(batch))
                    else:
                        start += len(batch)
                        yield from found
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


def _by_size(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Indices of windows of equal size: a tile's result must not depend on padding towards its neighbours'."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    yield from groups.items()


def mean_embedding(seen: Iterable[WindowResult]) -> FloatArray:
    """The mean of windows' embeddings, each weighted by its pixels with data; of equals where none has any."""
    first: FloatArray | None = None
    total: Any = 0.0
    plain: Any = 0.0
    weight = number = 0
    for one in seen:
        first = one.embedding if first is None else first
        exact = one.embedding.astype(np.float64)
        total, weight = total + one.weight * exact, weight + one.weight
        plain, number = plain + exact, number + 1
    if first is None:
        raise ValueError("No window was looked at.")
    if number == 1:
        return first
    mean: FloatArray = (total / weight if weight else plain / number).astype(np.float32)
    return mean
