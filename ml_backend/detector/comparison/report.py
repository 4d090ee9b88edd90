"""The report of a comparison as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ml_backend.detector.comparison.complexity import COUNTED
from ml_backend.detector.comparison.plan import ComparisonConfig
from ml_backend.detector.comparison.table import Measure, Row

FIGURES = (
    "ap",
    "ap50",
    "ap30",
    "parameters",
    "flops",
    "seconds",
    "total_seconds",
    "peak_memory_mb",
    "total_peak_memory_mb",
)


@dataclass(frozen=True)
class Column:
    """A column of the Markdown table: the figure, divided by ``unit``, with ``digits`` after the point."""

    title: str
    figure: str
    unit: float
    digits: int


COLUMNS = (
    Column("mask AP", "ap", 1, 3),
    Column("AP50", "ap50", 1, 3),
    Column("AP30", "ap30", 1, 3),
    Column("M parameters", "parameters", 1e6, 2),
    Column("GFLOPs", "flops", 1e9, 2),
    Column("seconds", "seconds", 1, 0),
    Column("seconds with pretraining", "total_seconds", 1, 0),
    Column("peak MB", "peak_memory_mb", 1, 0),
    Column("peak MB with pretraining", "total_peak_memory_mb", 1, 0),
)
CONSTANT = ("parameters", "flops")


@dataclass(frozen=True)
class Setting:
    """Dataset and machine of a comparison, for its report."""

    dataset: str
    version: str
    device: str
    jobs: int
    threads: int


def to_markdown(asked: ComparisonConfig, rows: Sequence[Row], sentences: Sequence[str], setting: Setting) -> str:
    """The report: verdict, table, explanation of its columns, failures."""
    head = ["row", *(column.title for column in COLUMNS), "seeds"]
    lines = [
        f"# Comparison on {setting.dataset} {setting.version}".rstrip(),
        "",
        *(f"- {sentence}" for sentence in sentences),
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *(markdown_row(row) for row in rows),
        "",
        *(f"{text}\n" for text in explain(asked, rows, setting)),
    ]
    failures = [f"- {row.name}, seed {seed}: {text}" for row in rows for seed, text in row.failures.items()]
    if failures:
        lines += ["## Failed", "", *failures, ""]
    return "\n".join(lines)


def markdown_row(row: Row) -> str:
    """One row: mean ± standard deviation over seeds, or why there is no result."""
    cells = [_cell(row.measure(column.figure), column) for column in COLUMNS]
    if not row.results:
        cells[0] = "failed: " + next(iter(row.failures.values()), "").replace("|", "\\|")
    seeds = f"{len(row.results)}" + (f" ({len(row.failures)} failed)" if row.failures else "")
    return "| " + " | ".join([row.name, *cells, seeds]) + " |"


def _cell(measure: Measure | None, column: Column) -> str:
    if measure is None:
        return ""
    text = f"{measure.mean / column.unit:.{column.digits}f}"
    if measure.deviation is None or column.figure in CONSTANT:
        return text
    return f"{text} ± {measure.deviation / column.unit:.{column.digits}f}"


def explain(asked: ComparisonConfig, rows: Sequence[Row], setting: Setting) -> list[str]:
    """What makes the rows comparable, and what the columns mean."""
    base = asked.base
    before = [result["memory_before_mb"] for row in rows for result in row.results.values()]
    libraries = f", of which {max(before):.0f} MB before training starts" if before and max(before) > 0 else ""
    return [
        f"Mean ± standard deviation over seeds {', '.join(map(str, asked.seeds))}; AP of masks on {asked.split}.",
        f"Equal are the steps, not the seconds: every weight was trained for {asked.total_iterations} steps of "
        f"{base.step_tiles} tiles. Staged rows and single modalities had {asked.pretrain_iterations} of them as "
        f"unimodal pretraining (done once per modality and seed, shared by all rows) and {base.iterations} as "
        f"fine-tuning; joint rows had all {asked.total_iterations} from scratch. Rows of one recipe and seed saw the "
        "same tiles in the same order, but a modality alone is neither trained nor measured on tiles that lack it.",
        "Seconds are wall-clock seconds of training with its validation. 'With pretraining' adds those of the "
        "unimodal models the row starts from; the plain column is what is paid when they exist already.",
        "Peak MB is the most GPU memory, or on a CPU the largest resident set of the training's own process"
        f"{libraries}.",
        COUNTED,
        f"Size {base.size}, device {setting.device}, {setting.jobs} trainings at a time, {setting.threads} CPU threads "
        "each.",
    ]


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row; each figure as mean and standard deviation (empty with one seed)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [f"{figure}_{part}" for figure in FIGURES for part in ("mean", "sd")]
    writer.writerow(["row", "kind", "fusion", "modalities", "anchor", "seeds", *figures, "failures"])
    for row in rows:
        measures = [row.measure(figure) for figure in FIGURES]
        values = [value for m in measures for value in ((m.mean, m.deviation) if m else (None, None))]
        failures = " ".join(f"seed {seed}: {sentence}" for seed, sentence in row.failures.items())
        cells = [row.name, row.kind, row.fusion, " ".join(row.modalities), row.anchor, len(row.results)]
        writer.writerow([*cells, *values, failures])
    return text.getvalue()


def to_json(asked: ComparisonConfig, rows: Sequence[Row], sentences: Sequence[str], setting: Setting) -> dict[str, Any]:
    """The whole report, with the results of each seed."""
    return {
        **vars(setting),
        **asked.identity(),
        "seeds": list(asked.seeds),
        "verdict": list(sentences),
        "notes": explain(asked, rows, setting),
        "rows": [row.to_json() for row in rows],
    }
