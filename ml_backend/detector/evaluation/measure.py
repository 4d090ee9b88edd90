"""Evaluating a detector on a split: from its detections to an :class:`Evaluation`."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ml_backend.detector.calibration import Calibration, scaled
from ml_backend.detector.checkpoint import open_checkpoint
from ml_backend.detector.dataset import DatasetSpec, read_dataset
from ml_backend.detector.errors import CheckpointError
from ml_backend.detector.evaluation.breakdown import break_down
from ml_backend.detector.evaluation.coco import MATCH_IOU, Floats, average_precision, box_predictions, challenge
from ml_backend.detector.evaluation.findings import AS_TRAINED, Findings, Search, predict_split
from ml_backend.detector.evaluation.matching import Matches, Pairs, match
from ml_backend.detector.evaluation.operating import best_threshold, counts_at
from ml_backend.detector.evaluation.overlaps import best_max_overlap, suppressed
from ml_backend.detector.evaluation.pixels import map_overlaps
from ml_backend.detector.evaluation.reliability import fit_temperature, reliability, scores_and_outcomes
from ml_backend.detector.evaluation.resampling import RESAMPLES, Thresholds, draw_tiles, intervals, resampled
from ml_backend.detector.evaluation.result import Evaluation, per_image_matches
from ml_backend.detector.history import read_log
from ml_backend.detector.inference import Detector, load
from ml_backend.detector.progress import Progress
from ml_backend.detector.validation import check_apart, check_dataset


def evaluate(
    dataset_dir: Path | str,
    checkpoint: Path | str,
    *,
    split: str = "test",
    device: str = "auto",
    progress: Progress | None = None,
    max_detections: int = 100,
    search: Search = AS_TRAINED,
    resamples: int = RESAMPLES,
    seed: int = 0,
    report: Path | None = None,
) -> Evaluation:
    """Evaluate a checkpoint on a split of a dataset directory.

    Args:
        dataset_dir: see :mod:`ml_backend.detector.dataset`.
        checkpoint: folder of a checkpoint; its card holds the threshold and temperature determined on validation.
        split: ``train``, ``val`` or ``test``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        progress: called with the share done (0..1) and a line of text.
        max_detections: instances counted per tile.
        search: windows and test-time augmentation; threshold and temperature were determined without.
        resamples: number of bootstrap samples; 0 for no intervals.
        seed: of the bootstrap.
        report: self-contained HTML file to write.

    Raises:
        DatasetError: the dataset is invalid, or the split shares tiles with an earlier one: ``train``, or ``val``, on
            which threshold and temperature were determined.
        CheckpointError: the checkpoint is damaged, or for other modalities, bands or classes.
        ConfigError: the search settings are invalid.
    """
    started = time.perf_counter()
    dataset = read_dataset(dataset_dir)
    detector = load(checkpoint, device)
    check_fits(detector, dataset, Path(checkpoint))
    check_apart(dataset, [*takewhile(lambda name: name != split, dataset.splits), split])
    own = {m.name: m for m in detector.modalities}  # with the checkpoint's normalisation
    check_dataset(dataset.with_modalities(tuple(own.get(m.name, m) for m in dataset.modalities)), list(own), [split])
    dataset = dataset.with_modalities(detector.modalities)
    log = read_log(open_checkpoint(checkpoint).path) if report is not None else {}
    findings = predict_split(detector, dataset, split, progress=progress, max_detections=max_detections, search=search)
    matches, pairs = match(findings.truth, findings.predictions, max_detections)
    result = measure(findings, matches, pairs, detector.calibration, resamples=resamples, seed=seed)
    if report is not None:
        from ml_backend.detector.evaluation.report import write_report

        write_report(report, result, findings, matches, pairs, str(checkpoint), log)
    return replace(result, seconds=time.perf_counter() - started)


def check_fits(detector: Detector, dataset: DatasetSpec, source: Path) -> None:
    """Check that a dataset has the detector's modalities, and no classes that it does not know.

    Raises:
        CheckpointError: naming what is missing.
    """
    available = {m.name: m.bands for m in dataset.modalities}
    for modality in detector.modalities:
        if available.get(modality.name) != modality.bands:
            raise CheckpointError(
                f"{source} needs the modality '{modality.name}' with bands {', '.join(modality.bands)}, which "
                f"{dataset.file} does not declare: use a checkpoint for the dataset's modalities."
            )
    unknown = [name for name in dataset.classes if name not in detector.classes]
    if unknown:
        raise CheckpointError(
            f"{source} does not know the class '{unknown[0]}' of {dataset.file} (it knows "
            f"{', '.join(detector.classes)}): evaluate a checkpoint trained on these classes."
        )


def evaluate_detector(
    detector: Detector,
    dataset: DatasetSpec,
    split: str,
    *,
    progress: Progress | None = None,
    max_detections: int = 100,
    batch_size: int = 8,
    calibration: Calibration | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a detector in memory on a split that has been checked; by default without intervals.

    Determines the largest overlap of detections (``best_max_overlap``), with which all metrics are computed.
    """
    started = time.perf_counter()
    findings = predict_split(
        detector,
        dataset,
        split,
        progress=progress,
        max_detections=max_detections,
        batch_size=batch_size,
        search=Search(max_overlap=1.0),
    )
    chosen = best_max_overlap(findings)
    findings = replace(suppressed(findings, chosen), search=AS_TRAINED)
    matches, pairs = match(findings.truth, findings.predictions, max_detections)
    result = measure(findings, matches, pairs, calibration or Calibration(), resamples=resamples, seed=seed)
    return replace(result, best_max_overlap=chosen, seconds=time.perf_counter() - started)


def measure(
    findings: Findings, matches: Matches, pairs: Pairs, calibration: Calibration, *, resamples: int, seed: int
) -> Evaluation:
    """Compute all metrics; ``seconds`` is left at 0."""
    truth, predictions, limit = findings.truth, findings.predictions, findings.max_detections
    classes = findings.dataset.classes
    ap, ar = average_precision(truth, predictions, limit)
    boxes = box_predictions(findings.tiles, findings.detections, classes)
    box_ap, box_ar = average_precision(truth, boxes, limit, kind="bbox")
    boundary_ap, _ = average_precision(truth, predictions, limit, kind="boundary")
    thresholds = Thresholds(best_threshold(matches), calibration.score_threshold)
    used = thresholds.best if thresholds.stored is None else thresholds.stored
    best = counts_at(matches, thresholds.best).total()
    pixel_iou, boundary_iou = map_overlaps(truth, predictions, used)
    regions = [tile.region for tile in findings.tiles]
    return Evaluation(
        ap=float(np.mean(ap[1:])),
        ap50=float(ap[1]),
        ap75=float(ap[6]),
        ap30=float(ap[0]),
        ar=float(np.mean(ar[1:])),
        f1=_number(best.f1),
        precision=_number(best.precision),
        recall=_number(best.recall),
        best_score_threshold=thresholds.best,
        n_tiles=len(findings.tiles),
        n_instances=int(matches.truths.sum()),
        seconds=0.0,
        per_image=_per_image(findings, matches, pairs, thresholds.best),
        f1_30=_number(counts_at(matches, thresholds.best, 0.3).total().f1),
        **_at_stored(matches, thresholds.stored),
        box_ap=float(np.mean(box_ap[1:])),
        box_ap50=float(box_ap[1]),
        box_ap75=float(box_ap[6]),
        box_ap30=float(box_ap[0]),
        box_ar=float(np.mean(box_ar[1:])),
        boundary_ap=float(np.mean(boundary_ap[1:])),
        **_challenge(findings),
        pixel_iou=_or_none(pixel_iou),
        boundary_iou=_or_none(boundary_iou),
        **_certainty(matches, calibration),
        classes=tuple(classes),
        search=dict(vars(findings.search)),
        **_intervals(matches, thresholds, regions, resamples, seed),
        breakdowns=break_down(
            matches,
            used,
            classes=classes,
            regions=regions,
            modalities=[[m.name for m in findings.dataset.modalities if m.name in own] for own in findings.modalities],
            truth=truth,
            predictions=predictions,
            max_detections=limit,
        ),
    )


def _at_stored(matches: Matches, threshold: float | None) -> dict[str, Any]:
    if threshold is None:
        return {}
    counts = counts_at(matches, threshold).total()
    return {
        "score_threshold": threshold,
        "f1_at_threshold": _or_none(counts.f1),
        "precision_at_threshold": _or_none(counts.precision),
        "recall_at_threshold": _or_none(counts.recall),
        "f1_30_at_threshold": _or_none(counts_at(matches, threshold, 0.3).total().f1),
    }


def _challenge(findings: Findings) -> dict[str, Any]:
    values = challenge(findings.truth, findings.predictions)
    return {f"rts_ap_{name}".removesuffix("_all"): _or_none(value) for name, value in values.items()}


def _certainty(matches: Matches, calibration: Calibration) -> dict[str, Any]:
    scores, correct = scores_and_outcomes(matches)
    stored = calibration.temperature
    return {
        "ece": reliability(scores, correct).error,
        "ece_calibrated": reliability(scaled(scores, stored), correct).error if stored else None,
        "temperature": stored,
        "best_temperature": fit_temperature(scores, correct),
    }


def _intervals(
    matches: Matches, thresholds: Thresholds, regions: list[str | None], resamples: int, seed: int
) -> dict[str, Any]:
    if not resamples or not len(matches.truths):
        return {}
    found = {"intervals": draw_tiles(len(regions), resamples, seed)}
    if len({region for region in regions if region is not None}) > 1:
        found["region_intervals"] = draw_tiles(len(regions), resamples, seed, regions)
    return {name: intervals(resampled(matches, thresholds, weights)) for name, weights in found.items()}


def _per_image(findings: Findings, matches: Matches, pairs: Pairs, threshold: float) -> dict[str, dict[str, Any]]:
    counts = counts_at(matches, threshold)
    hits = matches.hit[matches.at(MATCH_IOU)] & (matches.score >= threshold)
    per_tile = np.bincount(matches.tile, minlength=len(findings.tiles))
    detections = np.split(np.argsort(matches.tile, kind="stable"), np.cumsum(per_tile)[:-1])
    return {
        tile.file_name: {
            "tp": int(counts.tp[index]),
            "fp": int(counts.fp[index]),
            "fn": int(counts.fn[index]),
            "iou": float(pairs.iou[own[hits[own]]].mean()) if counts.tp[index] else 0.0,
            "region": tile.region,
            "modalities": list(findings.modalities[index]),
            **per_image_matches(matches, index, own),
        }
        for index, (tile, own) in enumerate(zip(findings.tiles, detections, strict=False))
    }


def _number(value: Floats) -> float:
    """The value, 0 where it is undefined."""
    return float(np.nan_to_num(value))


def _or_none(value: Floats | float) -> float | None:
    return None if np.isnan(value) else float(value)
