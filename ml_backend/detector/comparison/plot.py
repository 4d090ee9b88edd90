"""Plots of a comparison: AP50 of each row with its spread, and AP50 against training time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ml_backend.detector.comparison.table import Measure, Row

# Okabe and Ito's colours, distinguishable for colour-blind readers
COLOURS = {"single": "#999999", "staged": "#0072B2", "joint": "#D55E00", "pretrain": "#CCCCCC"}
LEGEND = {"single": "one modality", "staged": "pretrained, then fine-tuned", "joint": "joint from scratch"}
MARKERS = {"single": "s", "staged": "o", "joint": "^"}


def draw(rows: Sequence[Row], folder: Path, title: str) -> list[Path]:
    """Write ``quality`` and ``cost`` as PNG and SVG; rows without a result are left out."""
    shown = [row for row in rows if row.results and row.kind != "pretrain"]
    if not shown:
        return []
    quality = Figure(figsize=(8, 1.4 + 0.42 * len(shown)), layout="constrained")
    _quality(quality.subplots(), shown, title)
    cost = Figure(figsize=(10, 5), layout="constrained")
    _cost(cost.subplots(), shown, title)
    files = []
    for name, figure in (("quality", quality), ("cost", cost)):
        FigureCanvasAgg(figure)
        for suffix in ("png", "svg"):
            files.append(folder / f"{name}.{suffix}")
            figure.savefig(files[-1], dpi=150)
    return files


def _quality(axes: Axes, rows: Sequence[Row], title: str) -> None:
    order = sorted(rows, key=lambda row: _measure(row, "ap50").mean)
    for place, row in enumerate(order):
        ap50 = _measure(row, "ap50")
        seeds = [result["ap50"] for result in row.results.values()]
        colour = COLOURS[row.kind]
        axes.plot(seeds, [place] * len(seeds), ".", color=colour, alpha=0.5)
        axes.errorbar(
            ap50.mean, place, xerr=ap50.deviation or 0, fmt=MARKERS[row.kind], color=colour, capsize=4, markersize=7
        )
    axes.set_yticks(range(len(order)), [row.name for row in order])
    axes.set_xlabel("mask AP50: mean ± standard deviation, and each seed")
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(title)
    _legend(axes, rows)


def _cost(axes: Axes, rows: Sequence[Row], title: str) -> None:
    for place, row in enumerate(rows):
        ap50, seconds = _measure(row, "ap50"), _measure(row, "total_seconds")
        axes.errorbar(
            seconds.mean,
            ap50.mean,
            xerr=seconds.deviation or 0,
            yerr=ap50.deviation or 0,
            fmt=MARKERS[row.kind],
            color=f"C{place % 10}",
            capsize=3,
            label=row.name,
        )
    axes.set_xlabel("seconds of training, pretraining included: mean ± standard deviation")
    axes.set_ylabel("mask AP50: mean ± standard deviation")
    axes.grid(alpha=0.3)
    axes.set_title(title)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)


def _legend(axes: Axes, rows: Sequence[Row]) -> None:
    for kind in dict.fromkeys(row.kind for row in rows):
        axes.plot([], [], MARKERS[kind], color=COLOURS[kind], label=LEGEND[kind])
    axes.legend(loc="best", fontsize=8)


def _measure(row: Row, figure: str) -> Measure:
    """The figure of a row that has results."""
    return Measure.of([result[figure] for result in row.results.values()])
