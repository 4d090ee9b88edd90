"""One training of a comparison, in a process forked by :mod:`ml_backend.detector.comparison.worker`.

FOLDER/spec.json says what to do; FOLDER/result.json is written last, FOLDER/failure.txt if it was refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import read_dataset
from ml_backend.detector.errors import DetectorError
from ml_backend.detector.progress import Progress

TRAINING_SHARE = 0.95
SPEC, RESULT, EVALUATION, FAILURE, LOG = "spec.json", "result.json", "evaluation.json", "failure.txt", "log.txt"


@dataclass(frozen=True)
class Spec:
    """The task of one process; ``init`` holds checkpoint folders by modality."""

    dataset: str
    config: DetectorConfig
    init: dict[str, str]
    split: str
    device: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        return {**vars(self), "config": self.config.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Spec:
        """Build from JSON."""
        return cls(**{**data, "config": DetectorConfig.from_json(data["config"])})


def main(folder: Path, progress: Progress) -> int:
    """Execute spec.json of the folder; returns 0 when done, 1 when refused."""
    spec = Spec.from_json(json.loads((folder / SPEC).read_text(encoding="utf-8")))
    try:
        result = execute(spec, folder, progress)
    except DetectorError as error:
        replace_file(folder / FAILURE, str(error).encode())
        return 1
    replace_file(folder / RESULT, json.dumps(result, indent=2).encode())
    return 0


def execute(spec: Spec, folder: Path, progress: Progress) -> dict[str, Any]:
    """Train, evaluate and count parameters and FLOPs; continues an interrupted training."""
    from ml_backend.detector.chips import network_size
    from ml_backend.detector.comparison.complexity import count_flops, parameter_count
    from ml_backend.detector.devices import choose_device, peak_memory_mb
    from ml_backend.detector.evaluation import evaluate
    from ml_backend.detector.inference import load
    from ml_backend.detector.model.build import PAD_DIVISOR
    from ml_backend.detector.training import train

    before = peak_memory_mb(choose_device(spec.device))
    trained = train(
        spec.dataset,
        folder / "training",
        spec.config,
        init=dict(spec.init) or None,
        device=spec.device,
        progress=lambda share, text: progress(TRAINING_SHARE * share, text),
    )
    progress(TRAINING_SHARE, f"evaluating {spec.split}")
    evaluation = evaluate(spec.dataset, trained.checkpoint, split=spec.split, device=spec.device)
    replace_file(folder / EVALUATION, json.dumps(evaluation.to_json(), indent=2).encode())
    detector = load(trained.checkpoint, "cpu")
    tile = read_dataset(spec.dataset).tiles(spec.split)[0]
    size = network_size((tile.height, tile.width), detector.reduction)
    height, width = (-(-side // PAD_DIVISOR) * PAD_DIVISOR for side in size)
    progress(1.0, "done")
    return {
        "test": evaluation.summary(),
        "val": trained.metrics,
        "iterations": trained.iterations,
        "seconds": trained.seconds,
        "peak_memory_mb": trained.peak_memory_mb,
        "memory_before_mb": before,
        "parameters": parameter_count(detector),
        "flops": count_flops(detector, height, width),
    }
