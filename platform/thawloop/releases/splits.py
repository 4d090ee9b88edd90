"""Keep splits apart: which tiles share ground with another split's, or come too close."""

from collections.abc import Iterable

GridCell = tuple[int, int]


def neighbours(
    cells: Iterable[GridCell], theirs: Iterable[GridCell], *, tile_size: int, overlap: int, buffer: int = 0
) -> set[GridCell]:
    """The cells of a grid that share an area with one of theirs, or are less than a buffer away.

    Args:
        cells: (column, row) of candidate tiles.
        theirs: (column, row) of the other split's tiles of the same grid.
        tile_size: Pixels.
        overlap: Pixels shared by neighbouring tiles; tiles are `tile_size - overlap` apart.
        buffer: Pixels that must lie between two splits, along rows and along columns.

    Whole numbers decide, not coordinates: in EPSG:4326 neighbours that merely touch overlap by rounding.
    """
    step = tile_size - overlap
    reach = (tile_size + buffer - 1) // step
    candidates, others = set(cells), set(theirs)
    if reach == 0:
        return candidates & others
    steps = range(-reach, reach + 1)
    if len(candidates) > len(others):
        around = ((column + right, row + up) for column, row in others for right in steps for up in steps)
        return candidates.intersection(around)
    return {
        (column, row)
        for column, row in candidates
        if any((column + right, row + up) in others for right in steps for up in steps)
    }
