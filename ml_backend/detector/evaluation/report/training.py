"""Curves of the training, from its log."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d

from ml_backend.detector.evaluation.report.plots import BLUE, GREEN, GREY, ORANGE, Plot, axes_of, plot_of
from ml_backend.detector.history import Table

# label, colour and line style of the RPN and the three stages of the cascade
HEADS = {
    "rpn": ("RPN", GREY, ":"),
    "s0": ("stage 1", BLUE, "-"),
    "s1": ("stage 2", ORANGE, "--"),
    "s2": ("stage 3", GREEN, "-."),
}
PARTS = {"cls": "class", "bbox": "box", "mask": "mask"}
POINTS = 400  # of a curve: more would not be visible
SMOOTHED = 0.05  # share of the steps in the moving average
Floats = npt.NDArray[np.float64]


def training_curves(log: Mapping[str, Table]) -> list[Plot]:
    """Losses, learning rate, gradient norm and validation over the steps; empty for a checkpoint without a log."""
    steps, evaluations = log["training"], log["validation"]
    curves = []
    if steps:
        curves += [_total(steps), *(_losses(steps, part) for part in PARTS), _rate(steps)]
    if evaluations:
        curves.append(_validation(evaluations))
    return curves


def _total(steps: Table) -> Plot:
    figure, axes = axes_of("step", "loss")
    step, loss = _column(steps, "step"), _column(steps, "loss")
    axes.plot(*_thinned(step, loss), color=GREY, alpha=0.4, linewidth=0.8, label="each step")
    axes.plot(*_thinned(step, _smooth(loss)), color=BLUE, linewidth=1.8, label="moving average")
    axes.legend(loc="upper right", frameon=False)
    return plot_of(figure, "Loss", f"The sum of all parts; at the end {_smooth(loss)[-1]:.3g}.")


def _losses(steps: Table, part: str) -> Plot:
    figure, axes = axes_of("step", f"{PARTS[part]} loss")
    for name, (label, colour, style) in HEADS.items():
        column = f"loss_rpn_{part}" if name == "rpn" else f"{name}.loss_{part}"
        if column in steps:
            smooth = _smooth(_column(steps, column))
            axes.plot(*_thinned(_column(steps, "step"), smooth), style, color=colour, linewidth=1.6, label=label)
    if axes.lines:
        axes.legend(loc="upper right", frameon=False)
    return plot_of(figure, f"{PARTS[part].capitalize()} losses", "Of each head that has one, as weighted in the sum.")


def _rate(steps: Table) -> Plot:
    figure, axes = axes_of("step", "gradient norm")
    step, norm = _column(steps, "step"), _column(steps, "gradient_norm")
    axes.plot(*_thinned(step, norm), color=ORANGE, linewidth=0.9, label="gradient norm, before clipping")
    axes.set_yscale("log")
    other = axes.twinx()
    other.plot(*_thinned(step, _column(steps, "learning_rate")), "--", color=BLUE, linewidth=1.6, label="learning rate")
    other.set_ylabel("learning rate")
    other.set_ylim(bottom=0)
    handles = [*axes.get_lines(), *other.get_lines()]
    figure.legend(
        handles,
        [str(line.get_label()) for line in handles],
        loc="outside upper center",
        frameon=False,
        ncols=2,
        fontsize=8,
    )
    seconds, memory = _column(steps, "seconds")[-1], _column(steps, "memory_mb").max()
    return plot_of(
        figure, "Learning rate and gradient", f"{len(step)} steps in {seconds:.0f} s; peak memory {memory:.0f} MB."
    )


def _validation(evaluations: Table) -> Plot:
    figure, axes = axes_of("step", "on validation")
    for name, label, colour, style in (
        ("ap", "mask AP", BLUE, "o-"),
        ("ap50", "mask AP50", ORANGE, "s--"),
        ("f1", "F1 (IoU .5)", GREEN, "^:"),
    ):
        axes.plot(
            _column(evaluations, "step"),
            _column(evaluations, name),
            style,
            color=colour,
            markersize=4,
            linewidth=1.4,
            label=label,
        )
    axes.set_ylim(0, 1.04)
    axes.legend(loc="best", frameon=False)
    ap50 = _column(evaluations, "ap50")
    best = int(np.where(np.isfinite(ap50), ap50, -1).argmax())
    text = f"Best mask AP50 {ap50[best]:.3f} at step {evaluations['step'][best]:.0f}."
    return plot_of(figure, "Validation during training", text)


def _column(table: Table, name: str) -> Floats:
    """A column of the log; NaN if a log of another version lacks it."""
    return np.array(table.get(name, [np.nan] * len(table["step"])), dtype=float)


def _smooth(values: Floats) -> Floats:
    """Moving average, leaving out missing values."""
    width = 2 * max(1, round(SMOOTHED * len(values) / 2)) + 1
    known = np.isfinite(values)
    sums, shares = (
        uniform_filter1d(given, width, mode="constant") for given in (np.where(known, values, 0.0), known.astype(float))
    )
    mean: Floats = np.where(shares > 0.5 / width, sums / np.maximum(shares, 0.5 / width), np.nan)
    return mean


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most :data:`POINTS` points, including the first and the last."""
    chosen = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int))
    return x[chosen], y[chosen]
