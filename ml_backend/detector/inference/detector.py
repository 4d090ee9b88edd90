"""The detector in memory: from tiles to instances with outlines and uncertainty."""

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
    """A model ready to predict; its weights stay on the device.

    Attributes:
        window: (height, width) of the largest tile that is predicted whole; larger ones are cut into windows.
        reduction: ground pixels per network pixel in training; tiles and windows are resampled by it.
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
        self._fitting: dict[tuple[int, int], int] = {}  # by tile size, the batch size that fitted into the GPU's memory

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
            chips: tiles of any size; those of equal size are batched.
            score_threshold: instances below are left out (the network itself drops those below 0.05).
            max_detections: limit per window of a tile (the network itself keeps 100).
            tolerance: outlines are simplified by at most this many pixels.
            min_pixels: instances of fewer pixels are left out, as are those without a pixel where any modality has
                data.
            batch_size: tiles per forward pass; halved automatically if the GPU's memory is too small.
            window: larger tiles are cut into windows of this many pixels, whose instances are merged
                (:mod:`.merging`); None takes :attr:`window`.
            overlap: smallest number of pixels that neighbouring windows share; None takes a quarter of the window.
            tta: test-time augmentation, see :mod:`.network`: ``none``, ``flips`` (4 views) or ``d4`` (8 views).
            max_overlap: of two instances of a class, that with the lower score is left out if both cover more than this
                share of the smaller one; None takes the value determined on validation.
            progress: called with the share done (0..1) and a line of text after every forward pass.

        Returns:
            One result per chip, in order.

        Raises:
            DatasetError: a chip has none of the model's modalities or contradictory shapes.
            ConfigError: thresholds, sizes, window, overlap or augmentation are invalid.
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
        by_tile: list[list[WindowResult]] = [[] for _ in chips]
        for done, (index, result) in enumerate(self.predict_windows(parts, batch_size=batch_size, tta=tta), start=1):
            by_tile[tile_of[index]].append(result)
            if progress:
                progress(done / len(parts), f"window {done}/{len(parts)}")

        def tile_result(windows: list[WindowResult], size: tuple[int, int]) -> TileResult:
            started = time.perf_counter()
            kept = tile_instances(
                windows,
                size,
                score_threshold=score_threshold,
                min_pixels=min_pixels,
                max_overlap=self.max_overlap(max_overlap),
            )
            best = sorted(kept, key=lambda instance: -instance.score)[: max_detections * len(windows)]
            detections = tuple(self.outline(instance, tolerance) for instance in best)
            seconds = sum(one.seconds for one in windows) + time.perf_counter() - started
            return TileResult(detections, mean_embedding(windows), seconds)

        return [tile_result(windows, size) for windows, size in zip(by_tile, sizes, strict=True)]

    def windows(self, size: tuple[int, int], window: int | None = None, overlap: int | None = None) -> list[Window]:
        """The windows into which a tile of ``size`` (height, width) is cut, row by row.

        Raises:
            ConfigError: window or overlap are invalid.
        """
        own = self.window if window is None else (window, window)
        return plan_windows(size, own, min(own) // 4 if overlap is None else overlap)

    def max_overlap(self, wanted: float | None = None) -> float:
        """The given largest overlap of two instances, or that determined on validation, or the default."""
        return next(value for value in (wanted, self.calibration.max_overlap, DEFAULT_MAX_OVERLAP) if value is not None)

    def predict_windows(
        self, parts: Sequence[WindowChip], *, batch_size: int = 8, tta: str = "none"
    ) -> Iterator[tuple[int, WindowResult]]:
        """Predict windows; yields (index, result) as they become available. Windows of equal size are batched.

        Raises:
            ConfigError: there is no such augmentation.
            DatasetError: see :meth:`predict`.
            DeviceError: see :meth:`predict`.
        """
        views = symmetries(tta)

        def predict_batch(indices: Sequence[int]) -> list[tuple[int, WindowResult]]:
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

        yield from self._each_batch([part.window.size for part in parts], batch_size, predict_batch)

    def _tile_instances(self, part: WindowChip, found: Any) -> list[DetectedInstance]:
        """A window's instances in the tile's pixels, with ``on_data`` set."""
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
        """Segment and classify the content of given boxes, for interactive use.

        The masks are those of the boxes as given (clipped to the tile); nothing is suppressed. The cascade's stages
        start from the given boxes, too; the boxes that they regress are in ``stage_boxes``.

        Args:
            chip: a tile of any size; of a large one only windows around the boxes are read and predicted.
            boxes: x1, y1, x2, y2 in tile pixels.
            class_name: class of the content; None takes the most probable one. The score is that of the class.
            tolerance: outlines are simplified by at most this many pixels.
            tta: as in :meth:`predict`.

        Returns:
            One detection per box, in order; without rings if nothing is found in the box.

        Raises:
            PromptError: a box is not a box or lies outside the tile, or the class is unknown.
            ConfigError: the tolerance or augmentation is invalid.
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

        def segment_batch(numbers: Sequence[int]) -> list[tuple[int, Detection]]:
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

        answers = dict(self._each_batch([part.size for part in windows], 1, segment_batch))
        return [answers[index] for index in range(len(boxes))]

    def outline(self, instance: DetectedInstance, tolerance: float) -> Detection:
        """The detection of an instance, with outline and calibrated probability."""
        probability = self.calibration.probability(instance.score)
        return replace(instance.detection(self.classes, tolerance), probability=probability)

    def window_chip(self, window: Window, chip: ChipInput) -> WindowChip:
        """The content of a window, with its number of pixels that have data in any modality."""
        return WindowChip(window, chip, int(np.count_nonzero(covered(chip, self._names))))

    def _plan(self, chip: ChipInput, windows: list[Window]) -> list[WindowChip]:
        """The windows with data; at least one, even without data."""
        if len(windows) == 1:  # its weight does not matter, and counting takes time
            return [WindowChip(windows[0], chip, 1)]
        parts = [self.window_chip(window, window.of(chip)) for window in windows]
        return [part for part in parts if part.valid] or parts[:1]

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(modality.name for modality in self.modalities)

    def _prepare(self, chip: ChipInput) -> network.Prepared:
        return network_input(chip, self.modalities, self.reduction)

    def _each_batch(
        self, sizes: Sequence[tuple[int, int]], batch_size: int, predict: Callable[[Sequence[int]], list[T]]
    ) -> Iterator[T]:
        """Apply ``predict`` to batches of equal size in evaluation mode; halves the batch size when memory runs out."""
        was_training = self.model.training
        self.model.eval()
        try:
            for size, same in _by_size(sizes):
                start = 0
                while start < len(same):
                    batch = same[start : start + min(batch_size, self._fitting.get(size, batch_size))]
                    try:
                        found = predict(batch)
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
            "The GPU's memory does not hold %d tiles %s at once: continuing with a batch size of %d.",
            failed, what, self._fitting[size],
        )  # fmt: skip


def _by_size(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Indices grouped by size, so that no tile is padded: its result must not depend on others in the batch."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    yield from groups.items()


def mean_embedding(results: Iterable[WindowResult]) -> FloatArray:
    """Mean embedding [D] of windows, weighted by their pixels with data; unweighted if none has any."""
    first: FloatArray | None = None
    total: Any = 0.0
    plain: Any = 0.0
    weight = number = 0
    for one in results:
        first = one.embedding if first is None else first
        exact = one.embedding.astype(np.float64)
        total, weight = total + one.weight * exact, weight + one.weight
        plain, number = plain + exact, number + 1
    if first is None:
        raise ValueError("There are no window results.")
    if number == 1:
        return first
    mean: FloatArray = (total / weight if weight else plain / number).astype(np.float32)
    return mean
