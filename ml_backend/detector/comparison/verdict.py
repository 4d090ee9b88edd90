"""The verdict of a comparison: sentences computed from paired differences over seeds.

Rows of one seed share data order, augmentation and pretrained weights, so their difference is less noisy than either.
Its interval is Student's t over seeds: the variation between trainings, on fixed test tiles. The variation with the
choice of test tiles is given by the paired bootstrap of :mod:`ml_backend.detector.evaluation`, seed by seed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from scipy import stats

from ml_backend.detector.comparison.table import Measure, Row

if TYPE_CHECKING:
    from ml_backend.detector.evaluation import Evaluation

LEVEL = 0.95
PAPERS_BEST = "residual_cross_attention"


@dataclass(frozen=True)
class SeedDifference:
    """Mean difference of AP50, ``better`` minus ``other``, over common seeds; with one seed the limits are NaN."""

    better: str
    other: str
    mean: float
    low: float
    high: float
    seeds: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def text(self) -> str:
        """The difference with its interval."""
        if self.seeds < 2:
            return f"{self.mean:+.3f} (one seed: no interval)"
        return f"{self.mean:+.3f} (95 % interval over {self.seeds} paired seeds {self.low:+.3f} to {self.high:+.3f})"


def difference(better: Row, other: Row, figure: str = "ap50") -> SeedDifference | None:
    """The paired difference of two rows; None where no seed has both."""
    seeds = sorted(set(better.results) & set(other.results))
    if not seeds:
        return None
    values = Measure.of([better.results[seed][figure] - other.results[seed][figure] for seed in seeds])
    half = math.nan
    if values.deviation is not None:
        half = stats.t.ppf(0.5 + LEVEL / 2, len(seeds) - 1) * values.deviation / math.sqrt(len(seeds))
    return SeedDifference(better.name, other.name, values.mean, values.mean - half, values.mean + half, len(seeds))


def verdict(rows: Sequence[Row]) -> list[str]:
    """One sentence each: what is best, whether fusion helps, whether the paper's order holds, what the recipes do."""
    done = [row for row in rows if row.results and row.kind != "pretrain"]
    singles = _ranked(row for row in done if row.kind == "single")
    fused = _ranked(row for row in done if row.kind in ("staged", "joint"))
    best = _ranked(done)
    if not best:
        return ["No training ended well: there is nothing to compare."]
    mean = best[0].measure("ap50")
    sentences = [f"Best by mean AP50: {best[0].name} ({mean.mean if mean else 0:.3f})."]
    if singles and fused:
        sentences += [_fusion_helps(fused[0], singles[0]), _over_tiles(fused[0], singles[0])]
    return [*sentences, *_against_anchor(fused, singles), *_papers_order(fused), *_recipes(fused)]


def _fusion_helps(fused: Row, single: Row) -> str:
    found = difference(fused, single)
    if found is None:
        return f"No seed has both {fused.name} and {single.name}."
    says = "does not decide whether fusion helps"
    if found.decided:
        says = "excludes zero: fusion helps here" if found.mean > 0 else "excludes zero: fusion hurts here"
    elif found.seeds < 2:
        says = "takes more seeds to judge"
    return (
        f"The best fusion, {fused.name}, differs from the best single modality, {single.name}, by {found.text()}; "
        f"it {says}.{_other_tiles(fused, single)} Both were chosen by these same figures, which flatters the choice "
        "among more rows."
    )


def _other_tiles(fused: Row, single: Row) -> str:
    """A warning if the fusion was evaluated on tiles that lack the single modality; empty otherwise."""
    for _, a, b in _evaluations(fused, single):
        if set(a.per_image) != set(b.per_image):
            return (
                f" But they were measured on different tiles ({a.n_tiles} and {b.n_tiles}), as some lack the single "
                "modality: the difference is also one between tiles."
            )
    return ""


def _evaluations(better: Row, other: Row) -> Iterator[tuple[int, Evaluation, Evaluation]]:
    """The evaluations of both rows, for each common seed."""
    from ml_backend.detector.evaluation import Evaluation

    for seed in sorted(set(better.evaluations) & set(other.evaluations)):
        a, b = (
            Evaluation.from_json(json.loads(row.evaluations[seed].read_text(encoding="utf-8")))
            for row in (better, other)
        )
        yield seed, a, b


def _over_tiles(better: Row, other: Row) -> str:
    """The same difference with its interval over test tiles, for each seed."""
    from ml_backend.detector.evaluation import compare_evaluations

    intervals = []
    for seed, b, a in _evaluations(better, other):
        if set(a.per_image) != set(b.per_image):
            return f"{better.name} and {other.name} were measured on different tiles: no interval over tiles."
        found = compare_evaluations(a, b)["ap50"]
        if found.difference is not None:
            intervals.append(f"seed {seed} {found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})")
    return f"Its 95 % intervals over test tiles (paired bootstrap): {'; '.join(intervals) or 'nothing to measure'}."


def _against_anchor(fused: Sequence[Row], singles: Sequence[Row]) -> list[str]:
    """The difference between every fusion and its anchor alone; negative if the other modality only adds noise."""
    sentences = []
    for anchor in singles:
        own = (row for row in fused if row.anchor == anchor.anchor)
        if differences := [f"{row.name} {found.text()}" for row in own if (found := difference(row, anchor))]:
            sentences.append(f"Minus the anchor alone ({anchor.name}): {'; '.join(differences)}.")
    return sentences


def _papers_order(fused: Sequence[Row]) -> list[str]:
    """Whether the paper's strategy is above each other one trained by the same recipe."""
    sentences = []
    anchors = dict.fromkeys(row.anchor for row in fused)
    for kind, anchor in product(("staged", "joint"), anchors):
        rows = {row.fusion: row for row in fused if (row.kind, row.anchor) == (kind, anchor)}
        papers = rows.pop(PAPERS_BEST, None)
        compared = [found for row in rows.values() if papers and (found := difference(papers, row))]
        if not papers or not compared:
            continue
        above = sum(found.mean > 0 for found in compared)
        clearly, reversed_ = (sum(found.decided and sign * found.mean > 0 for found in compared) for sign in (1, -1))
        holds = "holds" if above == len(compared) else "does not hold"
        on = f" on {anchor}" if len(anchors) > 1 else ""
        details = "; ".join(f"{found.other} {found.text()}" for found in compared)
        sentences.append(
            f"The paper's order ({PAPERS_BEST} above all others) {holds} by mean AP50 among the {kind} strategies{on}: "
            f"above {above} of {len(compared)}, clearly (interval without zero) above {clearly}, clearly below "
            f"{reversed_}. {papers.name} minus: {details}."
        )
    return sentences


def _recipes(fused: Sequence[Row]) -> list[str]:
    """Fine-tuning against joint training of the same strategy: AP50 and cost."""
    staged = {(row.fusion, row.anchor): row for row in fused if row.kind == "staged"}
    sentences = []
    for joint in (row for row in fused if row.kind == "joint" and (row.fusion, row.anchor) in staged):
        tuned = staged[joint.fusion, joint.anchor]
        found = difference(tuned, joint)
        seconds, total, scratch = tuned.measure("seconds"), tuned.measure("total_seconds"), joint.measure("seconds")
        if found and seconds and total and scratch:
            sentences.append(
                f"{tuned.name} differs from {joint.name} by {found.text()}; it took {seconds.mean / scratch.mean:.2f} "
                f"of its seconds when the pretrained models exist, {total.mean / scratch.mean:.2f} with pretraining."
            )
    return sentences


def _ranked(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -statistics.fmean(result["ap50"] for result in row.results.values()))
