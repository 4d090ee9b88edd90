"""Curves and diagrams of the report, as SVG data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ml_backend.detector.calibration import scaled
from ml_backend.detector.evaluation.matching import Matches
from ml_backend.detector.evaluation.operating import curve
from ml_backend.detector.evaluation.reliability import BINS, reliability, scores_and_outcomes

# Okabe and Ito's colours: distinguishable for everybody; line styles differ, too.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#767676"


@dataclass(frozen=True)
class Plot:
    """A plot as data URI, with a title and a textual description."""

    title: str
    text: str
    href: str


def precision_recall(matches: Matches, threshold: float) -> Plot:
    """Precision against recall at IoU .3, .5 and .75, all classes together; a dot at the score threshold."""
    figure, axes = axes_of("recall", "precision")
    for iou, colour, style in ((0.3, GREEN, ":"), (0.5, BLUE, "-"), (0.75, ORANGE, "--")):
        points = curve(matches, iou)
        axes.plot(points.recall, points.precision, style, color=colour, label=f"IoU {iou:g}", linewidth=1.8)
        kept = np.flatnonzero(points.score >= threshold)[-1:]
        axes.plot(points.recall[kept], points.precision[kept], "o", color=colour, markersize=6)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    axes.legend(loc="lower left", frameon=False)
    text = f"Precision against recall as the score threshold falls. The dots are at the threshold {threshold:.2f}."
    return plot_of(figure, "Precision and recall", text)


def reliability_diagram(matches: Matches, temperature: float | None) -> Plot:
    """Share of correct detections against score, in 15 bins, before and after scaling by the stored temperature."""
    scores, correct = scores_and_outcomes(matches)
    figure, axes = axes_of("score", "share correct (IoU .5)")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="ideal")
    before = reliability(scores, correct)
    centres = (np.arange(BINS) + 0.5) / BINS
    axes.bar(centres, np.nan_to_num(before.correct), width=0.9 / BINS, color=BLUE, alpha=0.45, label="scores")
    if temperature is not None:
        after = reliability(scaled(scores, temperature), correct)
        axes.plot(after.confidence, after.correct, "D--", color=ORANGE, markersize=4, label="after scaling")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.04)
    axes.legend(loc="upper left", frameon=False)
    text = "Bars at the diagonal mean calibrated scores; below it, the detector is overconfident."
    return plot_of(figure, "Reliability", text)


def score_histogram(matches: Matches, threshold: float) -> Plot:
    """Histogram of the scores of correct and wrong detections."""
    scores, correct = scores_and_outcomes(matches)
    figure, axes = axes_of("score", "instances")
    axes.hist(
        [scores[correct], scores[~correct]],
        bins=20,
        range=(0, 1),
        stacked=True,
        color=[BLUE, ORANGE],
        label=["correct (IoU .5)", "wrong"],
    )
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=f"threshold {threshold:.2f}")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best", frameon=False)
    return plot_of(figure, "Scores", f"{correct.sum()} correct and {(~correct).sum()} wrong detections by score.")


def axes_of(x: str, y: str) -> tuple[Figure, Axes]:
    """An empty diagram with its axes' names."""
    figure = Figure(figsize=(4.4, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def plot_of(figure: Figure, title: str, text: str) -> Plot:
    """A finished diagram as a picture."""
    data = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "thawloop"}):
        figure.savefig(data, format="svg", metadata={"Date": None})
    return Plot(title, text, f"data:image/svg+xml;base64,{base64.b64encode(data.getvalue()).decode()}")
