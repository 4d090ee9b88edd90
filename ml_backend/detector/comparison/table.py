"""The rows of the table, from the results of single trainings: mean and standard deviation over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_backend.detector.comparison.plan import Kind, Run
from ml_backend.detector.comparison.run import EVALUATION, FAILURE, RESULT

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Measure:
    """Mean and sample standard deviation (None with one seed) over ``count`` seeds."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Measure:
        """Of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: of the row.
        kind: see :class:`ml_backend.detector.comparison.plan.Run`.
        fusion: its strategy; empty for single modalities.
        modalities: its inputs.
        anchor: the one of them that the others are added to.
        results: by seed: ``ap``, ``ap50``, ``ap30`` on the split; ``parameters``; ``flops``; ``seconds`` and
            ``peak_memory_mb`` of its own training; ``total_seconds`` and ``total_peak_memory_mb`` with the
            pretraining it starts from.
        evaluations: by seed, the file with the whole evaluation.
        failures: by seed, the error message.
    """

    name: str
    kind: Kind
    fusion: str
    modalities: tuple[str, ...]
    anchor: str
    results: Mapping[int, Figures]
    evaluations: Mapping[int, Path]
    failures: Mapping[int, str]

    def measure(self, figure: str) -> Measure | None:
        """A figure over seeds; None where no seed has a result."""
        values = [result[figure] for result in self.results.values()]
        return Measure.of(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """The whole row; figures with their means and deviations."""
        names = next(iter(self.results.values()), {})
        return {
            "name": self.name,
            "kind": self.kind,
            "fusion": self.fusion,
            "modalities": list(self.modalities),
            "anchor": self.anchor,
            "figures": {name: vars(self.measure(name)) for name in names},
            "seeds": {str(seed): dict(result) for seed, result in self.results.items()},
            "failures": {str(seed): sentence for seed, sentence in self.failures.items()},
        }


def read_rows(folder: Path, runs: Sequence[Run]) -> list[Row]:
    """The rows of a comparison whose runs have ended: compared detectors first, pretraining last."""
    raw = {run.name: _read(folder / run.name / RESULT) for run in runs}
    names = dict.fromkeys(run.row for run in sorted(runs, key=lambda run: run.kind == "pretrain"))
    return [_row(folder, [run for run in runs if run.row == name], raw) for name in names]


def _row(folder: Path, runs: Sequence[Run], raw: Mapping[str, dict[str, Any] | None]) -> Row:
    first = runs[0]
    results = {run.seed: _figures(result, run, raw) for run in runs if (result := raw[run.name])}
    alone = len(first.config.modalities) == 1
    return Row(
        first.row,
        first.kind,
        "" if alone else first.config.fusion,
        first.config.modalities,
        first.config.anchor,
        results,
        {run.seed: folder / run.name / EVALUATION for run in runs if raw[run.name]},
        {run.seed: _failure(folder / run.name / FAILURE) for run in runs if not raw[run.name]},
    )


def _figures(result: dict[str, Any], run: Run, raw: Mapping[str, dict[str, Any] | None]) -> dict[str, float]:
    before = [earlier for name in run.init.values() if (earlier := raw[name])]
    return {
        **{name: result["test"][name] for name in ("ap", "ap50", "ap30")},
        **{name: result[name] for name in ("parameters", "flops", "seconds", "peak_memory_mb")},
        "total_seconds": result["seconds"] + sum(earlier["seconds"] for earlier in before),
        "total_peak_memory_mb": max(r["peak_memory_mb"] for r in (result, *before)),
        "memory_before_mb": result["memory_before_mb"],
    }


def _read(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def _failure(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else "It was not run."
