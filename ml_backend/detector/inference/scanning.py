"""Predicting tiles of any size window by window; results are kept in a journal, so that little memory is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from ml_backend.detector.chips import ChipInput, read_tile
from ml_backend.detector.dataset import DatasetSpec, ModalitySpec, Tile
from ml_backend.detector.inference.detector import Detector
from ml_backend.detector.inference.journal import Journal
from ml_backend.detector.inference.merging import tile_instances
from ml_backend.detector.inference.rasters import Georeference
from ml_backend.detector.inference.results import Detection
from ml_backend.detector.inference.windows import Pixels, Window, WindowChip
from ml_backend.detector.progress import Progress


@dataclass(frozen=True)
class Source:
    """A tile or raster to predict: its name, files, pixels, and georeference if it has one."""

    name: str
    files: tuple[Path, ...]
    pixels: Pixels
    georeference: Georeference | None = None


class TileReader:
    """Reads tiles of a dataset; caches the last one for its next window."""

    def __init__(self, dataset: DatasetSpec, modalities: Sequence[ModalitySpec]) -> None:
        self._dataset, self._modalities = dataset, modalities
        self._last: tuple[Tile, ChipInput] | None = None

    def pixels(self, tile: Tile) -> Pixels:
        """The pixels of a tile, which are read on demand."""
        return _TilePixels(self, tile)

    def read(self, tile: Tile) -> ChipInput:
        """The chip of a whole tile."""
        if self._last is None or self._last[0] is not tile:
            self._last = tile, read_tile(self._dataset, self._modalities, tile)
        return self._last[1]


@dataclass(frozen=True)
class _TilePixels:
    reader: TileReader
    tile: Tile

    @property
    def size(self) -> tuple[int, int]:
        return (self.tile.height, self.tile.width)

    def read(self, window: Window) -> ChipInput:
        return window.of(self.reader.read(self.tile))


@dataclass(frozen=True)
class _PlannedWindow:
    """A window, with its number and that of its tile."""

    tile: int
    number: int
    window: Window


def scan(
    detector: Detector,
    sources: Sequence[Source],
    journal: Journal,
    *,
    window: int | None = None,
    overlap: int | None = None,
    batch_size: int = 8,
    tta: str = "none",
    progress: Progress,
) -> None:
    """Predict every window that is not in the journal yet, and add its result.

    The next batch is read while the network predicts one. Batches, and so their results, are the same however often
    this is interrupted.

    Raises:
        DetectorError: see :meth:`.Detector.predict`; a raster cannot be read; or the journal is damaged.
    """
    plan = [
        _PlannedWindow(tile, number, part)
        for tile, source in enumerate(sources)
        for number, part in enumerate(detector.windows(source.pixels.size, window, overlap))
    ]
    batches = {start: plan[start : start + batch_size] for start in range(0, len(plan), batch_size)}
    known = journal.batches()
    pending = [start for start in batches if start not in known]

    def read(start: int) -> list[tuple[_PlannedWindow, WindowChip]]:
        views = batches[start]
        parts = [
            (view, detector.window_chip(view.window, sources[view.tile].pixels.read(view.window))) for view in views
        ]
        return [(view, part) for view, part in parts if part.valid]

    def predict(number: int, views: Sequence[tuple[_PlannedWindow, WindowChip]]) -> None:
        found = detector.predict_windows([part for _, part in views], batch_size=batch_size, tta=tta)
        journal.add_batch(number, [(views[index][0].tile, views[index][0].number, result) for index, result in found])

    with ThreadPoolExecutor(1, "read") as reading:
        ahead = reading.submit(read, pending[0]) if pending else None
        for start, following in zip_longest(pending, pending[1:]):
            assert ahead is not None, "the next batch is always submitted"
            views = ahead.result()
            ahead = reading.submit(read, following) if following is not None else None
            predict(start, views)
            done = start + len(batches[start])
            progress(done / len(plan), f"window {done}/{len(plan)}")
    for tile in sorted(set(range(len(sources))) - journal.tiles()):  # without data: predict one window anyway
        view = next(view for view in plan if view.tile == tile)
        predict(-1 - tile, [(view, detector.window_chip(view.window, sources[tile].pixels.read(view.window)))])


def collect_detections(
    detector: Detector,
    sources: Sequence[Source],
    journal: Journal,
    *,
    score_threshold: float,
    min_pixels: int,
    max_overlap: float | None,
    tolerance: float,
) -> None:
    """Turn the window results of a journal into detections, stored there, too; see :meth:`.Detector.predict`."""

    def found() -> Iterator[tuple[int, Detection]]:
        for tile, source in enumerate(sources):
            instances = tile_instances(
                journal.window_results(tile),
                source.pixels.size,
                score_threshold=score_threshold,
                min_pixels=min_pixels,
                max_overlap=detector.max_overlap(max_overlap),
            )
            for instance in instances:
                yield tile, detector.outline(instance, tolerance)

    journal.replace_detections(found())
