"""A complete comparison: plan, trainings, table, verdict, plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.network import NETWORK_VERSION
from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.comparison.plan import ComparisonConfig, Run, plan_runs
from ml_backend.detector.comparison.schedule import Schedule
from ml_backend.detector.comparison.table import Row, read_rows
from ml_backend.detector.comparison.verdict import verdict
from ml_backend.detector.dataset import DatasetSpec, read_dataset
from ml_backend.detector.errors import ConfigError, DatasetError
from ml_backend.detector.lock import lock_folder
from ml_backend.detector.progress import Progress, silent

PLAN = "plan.json"


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: its rows, its verdict, and the files written."""

    rows: tuple[Row, ...]
    verdict: tuple[str, ...]
    files: tuple[Path, ...]
    data: dict[str, Any]


def compare(
    dataset_dir: Path | str,
    out_dir: Path | str,
    asked: ComparisonConfig | None = None,
    *,
    device: str = "auto",
    jobs: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Train everything to be compared, and write ``comparison.{md,csv,json}`` and ``{quality,cost}.{png,svg}``.

    Interrupted at any point, even by SIGKILL, the same call continues; with more seeds or strategies it trains only
    those. A training that fails is listed in the table and tried again by the next call.

    Args:
        dataset_dir: see :mod:`ml_backend.detector.dataset`.
        out_dir: folder of the comparison; ``out_dir/runs/NAME`` is each training's own.
        asked: what to compare.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        jobs: number of trainings at the same time, each in its own process.
        progress: called with the share done of the whole (0..1) and a line of text.

    Raises:
        DetectorError: the dataset, the configuration or the device is unusable, or the folder holds another comparison
            or is in use.
    """
    asked = asked or ComparisonConfig()
    if jobs < 1:
        raise ConfigError(f"jobs = {jobs} makes no sense: give at least 1.")
    dataset = read_dataset(dataset_dir)
    runs = plan_runs(asked, dataset)
    _check(dataset, runs, asked.split, device)  # now rather than after hours of training
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(folder / "runs", dataset.path, asked.split, device, jobs, progress or silent)
    with lock_folder(folder, f"{folder} is being worked on by another comparison: wait for it or end it."):
        _claim(folder, asked, dataset)
        schedule.run_all(runs)
        rows = read_rows(schedule.folder, runs)
        return _write(folder, asked, rows, dataset, schedule)


def _check(dataset: DatasetSpec, runs: Sequence[Run], split: str, device: str) -> None:
    """Check everything that would make a training fail, or leave it without tiles to be evaluated on."""
    from ml_backend.detector.devices import choose_device
    from ml_backend.detector.validation import check_apart, check_dataset, require_objects

    choose_device(device)
    check_apart(dataset, dataset.splits)
    modalities = tuple(dict.fromkeys(name for run in runs for name in run.config.modalities))
    val = ["val"] if dataset.has_split("val") else []
    check_dataset(dataset, modalities, dict.fromkeys(("train", *val, split)))
    for config in {run.config.modalities: run.config for run in runs}.values():
        require_objects(dataset.seen_by(config.modalities), config)
    for name in modalities:
        if not dataset.seen_by([name]).usable_tiles(split):
            raise DatasetError(
                f"{dataset.annotation_file(split)} lists no tile with a chip of modality '{name}', so nothing can be "
                "measured: add one, leave the modality out, or give another split."
            )


def _write(
    folder: Path, asked: ComparisonConfig, rows: list[Row], dataset: DatasetSpec, schedule: Schedule
) -> Comparison:
    from ml_backend.detector.comparison import report
    from ml_backend.detector.comparison.plot import draw

    setting = report.Setting(dataset.name, dataset.version, schedule.device, schedule.jobs, schedule.threads)
    sentences = verdict(rows)
    data = report.to_json(asked, rows, sentences, setting)
    texts = {
        "comparison.md": report.to_markdown(asked, rows, sentences, setting),
        "comparison.csv": report.to_csv(rows),
        "comparison.json": json.dumps(data, indent=2),
    }
    for name, text in texts.items():
        replace_file(folder / name, text.encode())
    pictures = draw(rows, folder, f"{dataset.name}, {len(asked.seeds)} seeds")
    return Comparison(tuple(rows), tuple(sentences), (*(folder / name for name in texts), *pictures), data)


def _claim(folder: Path, asked: ComparisonConfig, dataset: DatasetSpec) -> None:
    """Refuse a folder whose trainings used other settings or data; record those of this comparison."""
    file = folder / PLAN
    identity = {**asked.identity(), "dataset": dataset.checksum, "architecture": NETWORK_VERSION}
    text = json.dumps(identity, indent=2, sort_keys=True)
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{folder} holds a comparison with other settings, of another dataset or by another version ({file}): give "
            "another output folder, or remove it. Only seeds, fusions, recipes and anchors may change."
        )
    replace_file(file, text.encode())
