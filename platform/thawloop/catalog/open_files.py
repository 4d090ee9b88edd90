"""Raster files kept open: within a reader, and in the process for the next reader.

Opening a raster and placing it on a grid costs more than reading a chip whose blocks GDAL has cached, and GDAL's cache
is lost with the file. What a reader no longer needs is therefore kept, and handed to the next one that asks for it.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from rasterio.io import DatasetReader

from thawloop.catalog.errors import ChipUnreadable
from thawloop.catalog.models import Scene
from thawloop.catalog.placement import Placement, place
from thawloop.catalog.rasters import open_checked
from thawloop.catalog.stamps import Stamp, stamp_of
from thawloop.core.storage import checked_uri

MOST_OPEN = 32


@dataclass
class OpenFile:
    """An open raster, what its files were like when it was opened, and how it lies to the grids it was read on."""

    dataset: DatasetReader
    stamp: Stamp | None
    places: dict[tuple[int, float], Placement] = field(default_factory=dict)

    def place(self, srid: int, pixel_size: float) -> Placement:
        """Its placement on a grid, worked out once."""
        key = (srid, pixel_size)
        if key not in self.places:
            self.places[key] = place(self.dataset, srid, pixel_size)
        return self.places[key]


class OpenFiles:
    """The most recently used raster files of one reader, which other readers cannot use meanwhile."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, OpenFile] = OrderedDict()

    def open(self, scene: Scene, srid: int, pixel_size: float) -> tuple[DatasetReader, Placement]:
        """A scene's file and its placement on a grid.

        Raises:
            ChipUnreadable: It is not the file that was registered.
            Refused: It may not be read, is missing, or cannot be opened.
        """
        file = self._open.pop(scene.uri, None) or _idle.take(scene.uri) or _opened(scene.uri)
        self._open[scene.uri] = file
        _check_same(file.dataset, scene)
        while len(self._open) > MOST_OPEN:
            _idle.keep(*self._open.popitem(last=False))
        return file.dataset, file.place(srid, pixel_size)

    def close(self) -> None:
        """Leave the files to the next reader."""
        while self._open:
            _idle.keep(*self._open.popitem(last=False))


class _Idle:
    """Open files that no reader uses. Each is handed to one reader at a time: threads must not share a dataset."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, OpenFile] = OrderedDict()

    def take(self, uri: str) -> OpenFile | None:
        """The open file of a URI, if it still is what lies there and may be read."""
        with self._lock:
            file = self._files.pop(uri, None)
        if file is None:
            return None
        if file.stamp != stamp_of(uri):
            file.dataset.close()
            return None
        checked_uri(uri)
        return file

    def keep(self, uri: str, file: OpenFile) -> None:
        """Keep a file for the next reader; without a stamp nobody could tell whether it changed."""
        closed = [file]
        if file.stamp is not None:
            with self._lock:
                closed = [old for old in [self._files.pop(uri, None)] if old is not None]
                self._files[uri] = file
                while len(self._files) > MOST_OPEN:
                    closed.append(self._files.popitem(last=False)[1])
        for old in closed:
            old.dataset.close()

    def forget(self) -> None:
        """In a forked process: files would share their position with the parent's."""
        self.__init__()  # type: ignore[misc]  # the lock may have been held by a thread that is not here


_idle = _Idle()
os.register_at_fork(after_in_child=_idle.forget)


def _opened(uri: str) -> OpenFile:
    stamp = stamp_of(uri)
    dataset = open_checked(uri)
    # What a VRT reads may change without it.
    return OpenFile(dataset, None if dataset.driver == "VRT" else stamp)


def _check_same(dataset: DatasetReader, scene: Scene) -> None:
    if (dataset.width, dataset.height) != (scene.width, scene.height) or max(scene.band_indexes) > dataset.count:
        raise ChipUnreadable("the file is not the one that was registered: its size or bands changed")
