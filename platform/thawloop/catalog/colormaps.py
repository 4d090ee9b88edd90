"""Colour tables for one-band pictures: rio-tiler's, read without its slow import."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thawloop.catalog.errors import PictureRefused


@lru_cache(maxsize=1)
def _folder() -> Path:
    spec = find_spec("rio_tiler")
    if spec is None or not spec.submodule_search_locations:
        raise PictureRefused(
            "The package rio-tiler, which brings the colour tables, is not installed: run `make install`."
        )
    return Path(spec.submodule_search_locations[0]) / "cmap_data"


@lru_cache(maxsize=1)
def colormap_names() -> tuple[str, ...]:
    """The names a modality's `colormap` may have."""
    return tuple(sorted(path.stem for path in _folder().glob("*.npy")))


@lru_cache(maxsize=32)
def colormap(name: str) -> NDArray[np.uint8]:
    """A colour table, uint8 [256, 3].

    Raises:
        PictureRefused: There is no such table.
    """
    if name not in colormap_names():
        raise PictureRefused(f"There is no colour table `{name}`; viridis, magma, terrain, rdylgn and rdbu are some.")
    table: NDArray[np.uint8] = np.load(_folder() / f"{name}.npy", allow_pickle=False)[:256, :3].astype(np.uint8)
    return table
