"""Looking at tiles of any size window by window: what is known is kept in a journal, and memory stays small."""

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
    """What is predicted: its name, the files it is read from, its pixels, and where it lies if that is known."""

    name: str
    files: tuple[Path, ...]
    pixels: Pixels
    georeference: Georeference | None = None


class TileReader:
    """Reads tiles of a dataset, keeping the last one for its next window."""

    def __init__(self, dataset: DatasetSpec, modalities: Sequence[ModalitySpec]) -> None:
        self._dataset, self._modalities = dataset, modalities
        self._last: tuple[Tile, ChipInput] | None = None

    def pixels(self, tile: Tile) -> Pixels:
        """A tile's, to be read when its turn comes."""
        return _TilePixels(self, tile)

    def read(self, tile: Tile) -> ChipInput:
        """A tile's, whole."""
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
    """A window, by number, of a tile, by number."""

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
    """Look at every window that the journal does not know, and keep what it shows.

    The next windows are read while the network looks at some. Batches are the same however often this is interrupted,
    and so is what the network computes of them.

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

    def look(number: int, views: Sequence[tuple[_PlannedWindow, WindowChip]]) -> None:
        found = detector.look_at_windows([part for _, part in views], batch_size=batch_size, tta=tta)
        journal.add_batch(number, [(views[index][0].tile, views[index][0].number, seen) for index, seen in found])

    with ThreadPoolExecutor(1, "read") as reading:
        ahead = reading.submit(read, pending[0]) if pending else None
        for start, following in zip_longest(pending, pending[1:]):
            assert ahead is not None, "the next batch is always asked for"
            views = ahead.result()
            ahead = reading.submit(read, following) if following is not None else None
            look(start, views)
            done = start + len(batches[start])
            progress(done / len(plan), f"window {done}/{len(plan)}")
    for tile in sorted(set(range(len(sources))) - journal.tiles()):  # no data: one window is looked at all the same
        view = next(view for view in plan if view.tile == tile)
        look(-1 - tile, [(view, detector.window_chip(view.window, sources[tile].pixels.read(view.window)))])


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
    """Make finds of all that a journal knows, and keep them there; see :meth:`.Detector.predict`."""

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
