"""What each augmentation does to accuracy: the same training with and without it, over seeds.

    python -m benchmarks.detector_augmentation [--dataset DIR] [--seeds 0 1 2] [--iterations 400]

Every way trains all modalities jointly from scratch, on the same tiles in the same order, and is measured on the test
split; seeds are paired. Turning and mirroring are always on. Without --dataset one is generated (`manage.py
generate_dataset`). Prints JSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.detector_recipes import generate

# the default first: the others are compared with it
WAYS: Mapping[str, Mapping[str, Any]] = {
    "default (radiometric jitter .1)": {},
    "no radiometric jitter": {"radiometric_jitter": 0.0},
    "and scale jitter .5 to 2": {"scale_jitter": (0.5, 2.0)},
    "and copy-paste .5": {"copy_paste": 0.5},
    "and both": {"scale_jitter": (0.5, 2.0), "copy_paste": 0.5},
}


def measure(dataset: Path, folder: Path, options: argparse.Namespace) -> dict[str, dict[int, dict[str, float]]]:
    """Train every way with every seed: by way and seed, mask AP and AP50 on the test split."""
    from ml_backend.detector import DetectorConfig, evaluate, train

    results: dict[str, dict[int, dict[str, float]]] = {way: {} for way in WAYS}
    plain = DetectorConfig(size=options.size, iterations=options.iterations)
    for seed in options.seeds:
        for number, (way, settings) in enumerate(WAYS.items()):
            print(f"seed {seed}: {way}", file=sys.stderr, flush=True)
            config = replace(plain, seed=seed, **settings)
            trained = train(dataset, folder / f"{number}-{seed}", config, device=options.device)
            found = evaluate(dataset, trained.checkpoint, device=options.device, resamples=0)
            results[way][seed] = {"ap": found.ap, "ap50": found.ap50}
    return results


def compared(results: dict[str, dict[int, dict[str, float]]]) -> list[dict[str, Any]]:
    """A row per way: means, deviations, and the paired difference of AP50 from the default, with its interval."""
    from ml_backend.detector.comparison.table import Measure, Row
    from ml_backend.detector.comparison.verdict import difference

    rows = [Row(way, "joint", "", (), "", by_seed, {}, {}) for way, by_seed in results.items()]
    table = []
    for row in rows:
        found = difference(row, rows[0]) if row is not rows[0] else None
        figures = {name: vars(Measure.of([one[name] for one in row.results.values()])) for name in ("ap", "ap50")}
        interval = {"mean": found.mean, "low": found.low, "high": found.high} if found else None
        table.append({"way": row.name, **figures, "minus_default": interval})
    return table


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="dataset directory (default: one is generated)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="at least two (default: 0 1 2)")
    parser.add_argument("--iterations", type=int, default=400, help="steps of 4 tiles (default: %(default)s)")
    parser.add_argument("--size", default="nano", help="model size (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    options = parser.parse_args()
    if len(set(options.seeds)) < 2:
        parser.error("--seeds: give at least two, or nothing can be said of their spread")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset = options.dataset.absolute() if options.dataset else generate(folder)
        results = measure(dataset, folder, options)
    asked = {"iterations": options.iterations, "size": options.size, "seeds": options.seeds}
    print(json.dumps({**asked, "ways": compared(results), "results": results}, indent=2))


if __name__ == "__main__":
    main()
