"""Keep the test set apart: which tiles share ground with it."""

from collections.abc import Iterable

Cell = tuple[int, int]


def overlapping(cells: Iterable[Cell], test: Iterable[Cell], *, tile_size: int, overlap: int) -> set[Cell]:
    """The cells of a grid that share an area with one of the test cells.

    Args:
        cells: (column, row) of candidate tiles.
        test: (column, row) of test tiles of the same grid.
        tile_size: Pixels.
        overlap: Pixels shared by neighbouring tiles; tiles are `tile_size - overlap` apart.

    Whole numbers decide, not coordinates: in EPSG:4326 neighbours that merely touch overlap by rounding.
    """
    step = tile_size - overlap
    reach = (tile_size - 1) // step
    candidates = set(cells)
    if reach == 0:
        return candidates & set(test)
    steps = range(-reach, reach + 1)
    return {
        (column + right, row + up)
        for column, row in test
        for right in steps
        for up in steps
        if (column + right, row + up) in candidates
    }
