"""Diversity of the chosen tiles: k-center greedy (farthest-first traversal).

Each pick is the candidate farthest from everything that is labelled or already picked. The largest distance from a
candidate to its nearest pick is at most twice that of the best possible choice (Gonzalez 1985; as a core-set for active
learning: Sener and Savarese, ICLR 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.acquisition.errors import AcquisitionError

Embeddings = npt.NDArray[np.float32]

BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Picks:
    """The candidates picked, in order.

    Attributes:
        indexes: int64 [count].
        distances: float64 [count], how far each was from everything labelled or picked before it; infinite for a
            first pick without labelled tiles.
    """

    indexes: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]


def k_center(
    embeddings: npt.ArrayLike, count: int, *, labelled: npt.ArrayLike | None = None, first: int | None = None
) -> Picks:
    """Pick ``count`` candidates, farthest first.

    Time is O((L + count) N D) in matrix products; memory beyond the inputs is two float32 [N] and one block of at
    most 64 MiB, however many labelled tiles there are.

    Args:
        embeddings: [N, D] of the candidates.
        count: how many to pick; all of them if there are fewer.
        labelled: [L, D] of the tiles that are covered already.
        first: picked first, whatever its distance. Without it and without labelled tiles, the candidate farthest
            from the candidates' mean starts. Equal distances go to the lower index.

    Raises:
        AcquisitionError: dimensions differ, a value is not finite, or ``first`` is not the index of a candidate.
    """
    points = _matrix("candidates", embeddings)
    known = _matrix("labelled tiles", labelled) if labelled is not None else np.empty((0, points.shape[1]), np.float32)
    if len(known) and known.shape[1] != points.shape[1]:
        raise AcquisitionError(
            f"The candidates' embeddings have {points.shape[1]} dimensions and the labelled tiles' {known.shape[1]}: "
            "they come from different models; predict all tiles with one."
        )
    total = min(count, len(points))
    if total <= 0:
        return Picks(np.empty(0, np.int64), np.empty(0, np.float64))
    if first is not None and not 0 <= first < len(points):
        raise AcquisitionError(f"The first pick {first} is none of the {len(points)} candidates.")
    # Distances are |x|^2 + |c|^2 - 2 x.c, which loses precision far from the origin: centre the points.
    origin = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    points, known = points - origin, known - origin
    norms = np.einsum("nd,nd->n", points, points)
    nearest = _nearest(points, norms, known)
    if first is None:
        first = int(np.argmax(nearest if len(known) else norms))
    return _farthest_first(points, norms, nearest, first, total)


def _farthest_first(
    points: Embeddings, norms: Embeddings, nearest: npt.NDArray[np.float32], pick: int, total: int
) -> Picks:
    indexes, squared = np.empty(total, np.int64), np.empty(total, np.float64)
    buffer = np.empty(len(points), np.float32)
    for step in range(total):
        indexes[step], squared[step] = pick, nearest[pick]
        np.matmul(points, points[pick], out=buffer)
        buffer *= -2.0
        buffer += norms
        buffer += norms[pick]
        np.maximum(buffer, 0.0, out=buffer)
        np.minimum(nearest, buffer, out=nearest)
        nearest[pick] = -1.0  # never picked again, even among duplicates
        pick = int(np.argmax(nearest))
    return Picks(indexes, np.sqrt(np.maximum(squared, 0.0)))


def _nearest(points: Embeddings, norms: Embeddings, known: Embeddings) -> npt.NDArray[np.float32]:
    """Squared distance [N] of each point to the nearest known one, computed in blocks; infinite without any."""
    nearest = np.full(len(points), np.inf, np.float32)
    if not len(known):
        return nearest
    width = min(len(known), 4096)
    height = max(1, BLOCK_BYTES // (4 * width))
    known_norms = np.einsum("nd,nd->n", known, known)
    for left in range(0, len(known), width):
        columns = slice(left, left + width)
        for top in range(0, len(points), height):
            rows = slice(top, top + height)
            block = points[rows] @ known[columns].T
            block *= -2.0
            block += known_norms[columns]
            np.minimum(nearest[rows], block.min(axis=1) + norms[rows], out=nearest[rows])
    return np.maximum(nearest, 0.0, out=nearest)


def _matrix(name: str, values: npt.ArrayLike) -> Embeddings:
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    if matrix.ndim != 2:
        raise AcquisitionError(f"The embeddings of the {name} have shape {matrix.shape}, not [tiles, dimensions].")
    if not np.isfinite(matrix).all():
        raise AcquisitionError(f"An embedding of the {name} is not finite: predict these tiles again.")
    return matrix
