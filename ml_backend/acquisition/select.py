"""Choosing a batch: by a strategy, plus a random control arm against which the strategy is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from contracts.acquisition import DEFAULT_POOL_FACTOR, DEFAULT_STRATEGY, STRATEGIES
from ml_backend.acquisition.diversity import k_center
from ml_backend.acquisition.errors import AcquisitionError

Arm = Literal["acquired", "random"]


@dataclass(frozen=True)
class Candidates:
    """The tiles that may be chosen.

    Attributes:
        keys: stable, distinct names: the result depends on them and not on the order in which tiles arrive.
        embeddings: float32 [N, D]: the model's embeddings, or locations where there is no model yet.
        uncertainty: [N], 0 to 1; None where there is no model yet.
    """

    keys: Sequence[str]
    embeddings: npt.NDArray[np.float32]
    uncertainty: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Selected:
    """One chosen tile.

    Attributes:
        index: its place in the candidates as given.
        arm: chosen by the strategy, or by chance as a control.
        score: its uncertainty, or 0 where there is no model yet.
        rank: order of annotation in the batch, 0 first; both arms are mixed, so that annotators cannot tell them apart.
        parts: why it was chosen: ``distance`` to the nearest tile labelled or picked before (k-center), and
            ``uncertainty_rank`` (0 = highest).
    """

    index: int
    arm: Arm
    score: float
    rank: int
    parts: dict[str, float] = field(default_factory=dict)


def select(
    candidates: Candidates,
    *,
    count: int,
    random_count: int = 0,
    strategy: str = DEFAULT_STRATEGY,
    labelled: npt.NDArray[np.float32] | None = None,
    pool_factor: float = DEFAULT_POOL_FACTOR,
    seed: int = 0,
) -> list[Selected]:
    """Choose a batch, in order of annotation. The same input and seed give the same batch in any input order.

    The control arm is drawn uniformly from *all* candidates before the strategy chooses among the others, so it is an
    unbiased sample of what could have been annotated, and the arms share no tile.

    Args:
        candidates: what may be chosen.
        count: size of the batch, both arms together; fewer if there are fewer candidates.
        random_count: how many of these belong to the control arm.
        strategy: one of :data:`contracts.acquisition.STRATEGIES`. Without uncertainty, all but ``random`` act as
            ``kcenter`` (a cold start
            passes locations as embeddings).
        labelled: float32 [L, D] embeddings of tiles that are labelled or given to annotators.
        pool_factor: ``entropy_disagreement_kcenter`` chooses among the ``pool_factor * count`` most uncertain tiles.
        seed: of all random choices.

    Raises:
        AcquisitionError: unknown strategy, contradictory counts, repeated keys, or arrays that do not match.
    """
    _check(candidates, count, random_count, strategy, pool_factor)
    order = np.array(sorted(range(len(candidates.keys)), key=candidates.keys.__getitem__), dtype=np.int64)
    total = min(count, len(order))
    control_size = min(random_count, total)
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(order))
    control, rest = shuffled[:control_size], np.sort(shuffled[control_size:])
    embeddings = _unit_scale(candidates, labelled)
    uncertainty = None if candidates.uncertainty is None else np.asarray(candidates.uncertainty, np.float64)[order]
    acquired, parts = _acquire(
        strategy,
        embeddings[0][order[rest]],
        None if uncertainty is None else uncertainty[rest],
        embeddings[1],
        total - control_size,
        pool_factor,
        generator,
    )
    ranks = _mixed_ranks(len(acquired), control_size, generator)
    scores = np.zeros(len(order)) if uncertainty is None else uncertainty
    chosen: list[tuple[int, Arm, dict[str, float]]] = [
        *((int(rest[pick]), "acquired", why) for pick, why in zip(acquired, parts, strict=True)),
        *((int(pick), "random", {}) for pick in control),
    ]
    batch = [
        Selected(int(order[place]), arm, float(scores[place]), int(rank), why)
        for (place, arm, why), rank in zip(chosen, ranks, strict=True)
    ]
    return sorted(batch, key=lambda item: item.rank)


def _acquire(
    strategy: str,
    embeddings: npt.NDArray[np.float32],
    uncertainty: npt.NDArray[np.float64] | None,
    labelled: npt.NDArray[np.float32] | None,
    count: int,
    pool_factor: float,
    generator: np.random.Generator,
) -> tuple[list[int], list[dict[str, float]]]:
    """Picks among the given rows, in order, and why each."""
    if strategy == "random":
        picks = generator.permutation(len(embeddings))[:count]
        return [int(p) for p in picks], [{} for _ in picks]
    if uncertainty is None or strategy == "kcenter":
        # A space-filling cold start should not always begin at the same tile.
        start = None if labelled is not None and len(labelled) else int(generator.integers(max(1, len(embeddings))))
        cover = k_center(embeddings, count, labelled=labelled, first=start if len(embeddings) else None)
        return [int(p) for p in cover.indexes], [_distance(d) for d in cover.distances]
    by_uncertainty = np.argsort(-uncertainty, kind="stable")
    if strategy == "uncertainty":
        picks = by_uncertainty[:count]
        return [int(p) for p in picks], [{"uncertainty_rank": float(r)} for r in range(len(picks))]
    pool = by_uncertainty[: math.ceil(pool_factor * count)]
    cover = k_center(embeddings[pool], count, labelled=labelled, first=0 if len(pool) and count else None)
    return (
        [int(pool[p]) for p in cover.indexes],
        [{"uncertainty_rank": float(p), **_distance(d)} for p, d in zip(cover.indexes, cover.distances, strict=True)],
    )


def _distance(distance: float) -> dict[str, float]:
    """JSON has no infinity: a first pick without labelled tiles has no distance."""
    return {"distance": float(distance)} if math.isfinite(distance) else {}


def _mixed_ranks(acquired: int, control: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Ranks [acquired + control]: of the acquired (best first), then of the control arm, at random places."""
    total = acquired + control
    random_places = np.sort(generator.permutation(total)[:control])
    others = np.setdiff1d(np.arange(total), random_places, assume_unique=True)
    ranks: npt.NDArray[np.int64] = np.concatenate([others, random_places]).astype(np.int64)
    return ranks


def _unit_scale(
    candidates: Candidates, labelled: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Embeddings of a model as unit vectors (their length is mostly image contrast); locations as they are."""
    embeddings = np.asarray(candidates.embeddings, dtype=np.float32)
    if candidates.uncertainty is None:
        return embeddings, labelled
    return _unit_vectors(embeddings), None if labelled is None else _unit_vectors(np.asarray(labelled, np.float32))


def _unit_vectors(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    vectors: npt.NDArray[np.float32] = embeddings / np.where(length > 0, length, np.float32(1))
    return vectors


def _check(candidates: Candidates, count: int, random_count: int, strategy: str, pool_factor: float) -> None:
    size = len(candidates.keys)
    if strategy not in STRATEGIES:
        raise AcquisitionError(f"The strategy '{strategy}' is unknown: choose one of {', '.join(STRATEGIES)}.")
    if count < 0 or not 0 <= random_count <= count:
        raise AcquisitionError(
            f"A batch of {count} with {random_count} random tiles makes no sense: give 0 <= random <= batch size."
        )
    if pool_factor < 1:
        raise AcquisitionError(f"The pool factor {pool_factor} would leave fewer tiles than the batch: give 1 or more.")
    if len(set(candidates.keys)) != size:
        raise AcquisitionError("Two candidates have the same key: name each tile once.")
    if np.ndim(candidates.embeddings) != 2 or len(candidates.embeddings) != size:
        raise AcquisitionError(
            f"{size} candidates came with embeddings of shape {np.shape(candidates.embeddings)}: give one row for each."
        )
    if candidates.uncertainty is not None:
        values = np.asarray(candidates.uncertainty)
        if values.shape != (size,) or not np.isfinite(values).all():
            raise AcquisitionError(f"{size} candidates need one finite uncertainty each: predict them again.")
