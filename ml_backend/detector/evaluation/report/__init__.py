"""An evaluation as one self-contained HTML file: metrics, curves, break-downs, and pictures of detections.

Names of files, regions and classes are untrusted input: the template escapes everything, and the page forbids scripts
and external resources (Content-Security-Policy).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.evaluation.findings import Findings
from ml_backend.detector.evaluation.matching import Matches, Pairs
from ml_backend.detector.evaluation.names import BREAKDOWNS, HUMANS, METRICS
from ml_backend.detector.evaluation.report.gallery import gallery
from ml_backend.detector.evaluation.report.plots import precision_recall, reliability_diagram, score_histogram
from ml_backend.detector.evaluation.report.training import training_curves
from ml_backend.detector.evaluation.result import Evaluation
from ml_backend.detector.history import Table


def write_report(
    file: Path,
    evaluation: Evaluation,
    findings: Findings,
    matches: Matches,
    pairs: Pairs,
    checkpoint: str,
    log: Mapping[str, Table],
) -> None:
    """Write the page.

    Args:
        file: HTML file; replaced if there.
        evaluation: the metrics.
        findings: detections and ground truth.
        matches: of the findings, for all sizes.
        pairs: of the same matching.
        checkpoint: name of the detector.
        log: of its training (:func:`ml_backend.detector.history.read_log`).
    """
    stored = evaluation.score_threshold
    threshold = evaluation.best_score_threshold if stored is None else stored
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja").render(
        evaluation=evaluation,
        dataset=findings.dataset,
        split=findings.split,
        limit=findings.max_detections,
        checkpoint=checkpoint,
        threshold=threshold,
        groups=metric_rows(evaluation),
        breakdowns=[(title, evaluation.breakdowns[kind]) for kind, title in BREAKDOWNS.items()],
        humans=HUMANS,
        plots=[
            precision_recall(matches, threshold),
            reliability_diagram(matches, evaluation.temperature),
            score_histogram(matches, threshold),
        ],
        training=training_curves(log),
        gallery=gallery(findings, matches, pairs, threshold),
        created=datetime.now(UTC).isoformat(timespec="minutes"),
    )
    replace_file(file, page.encode())


def metric_rows(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Rows of the tables by group: the metrics with a value, and their intervals."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, metric in METRICS.items():
        value = getattr(evaluation, name)
        if value is not None:
            row = {
                "metric": metric,
                "value": value,
                "interval": evaluation.intervals.get(name),
                "region_interval": evaluation.region_intervals.get(name),
            }
            groups.setdefault(metric.group, []).append(row)
    return groups
