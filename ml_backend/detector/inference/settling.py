"""From what windows show to the instances of a tile: joined, chosen, given out once nothing can change them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from ml_backend.detector.inference.instances import Instance
from ml_backend.detector.inference.merging import Merger
from ml_backend.detector.inference.seen import Seen
from ml_backend.detector.inference.suppression import Suppressor


def settle(
    seen: Iterable[Seen], size: tuple[int, int], *, score_threshold: float, min_pixels: int, max_overlap: float
) -> Iterator[Instance]:
    """The instances of a tile of ``size`` (height, width), each its largest part.

    Windows come from the top down; memory grows with a row of them. Instances are given out by where they lie, and best
    first only where there is one row of windows. See :meth:`.Detector.predict` for the rest.
    """
    merger, suppressor = Merger(size), Suppressor(max_overlap)

    def whole(top: int | None) -> Iterator[Instance]:
        for instance in merger.settled(top):
            if instance.on_data and instance.score >= score_threshold:
                largest = instance.largest_part()
                if largest.pixels >= min_pixels:
                    yield largest

    for top, row in groupby(seen, key=lambda one: one.window.top):
        suppressor.add(whole(top))
        yield from suppressor.settled(top, merger.open_boxes())
        for one in row:
            merger.add(one.window, one.instances)
    suppressor.add(whole(None))
    yield from suppressor.settled()
