"""How fast k-center is, and in how little memory, against what one would write without it.

    python benchmarks/acquisition.py [--tiles 20000] [--dimensions 256] [--labelled 1000] [--picks 40]

Two baselines on the same tiles: a loop that recomputes the distances to everything chosen before each pick, and the
full distance table (what `sklearn.metrics.pairwise_distances` gives; scipy's `cdist` here). Prints ratios, because
seconds depend on the machine. The table is skipped where it would not fit in 4 GiB.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

from ml_backend.acquisition import k_center


def naive_loop(points: np.ndarray, labelled: np.ndarray, picks: int) -> list[int]:
    """Before each pick, the distance of every candidate to everything labelled or picked."""
    chosen: list[int] = []
    for _ in range(picks):
        there = np.concatenate([labelled, points[chosen]])
        nearest = np.full(len(points), np.inf)
        for centre in there:
            nearest = np.minimum(nearest, np.linalg.norm(points - centre, axis=1))
        nearest[chosen] = -1
        chosen.append(int(np.argmax(nearest)))
    return chosen


def full_table(points: np.ndarray, labelled: np.ndarray, picks: int) -> list[int]:
    """The whole table of distances first, then greedy picks from it."""
    nearest = cdist(points, labelled).min(axis=1)
    table = cdist(points, points)
    chosen: list[int] = []
    for _ in range(picks):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, table[chosen[-1]])
        nearest[chosen] = -1
    return chosen


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The best of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--labelled", type=int, default=1_000)
    parser.add_argument("--picks", type=int, default=40)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    points = generator.normal(size=(options.tiles, options.dimensions)).astype(np.float32)
    labelled = generator.normal(size=(options.labelled, options.dimensions)).astype(np.float32)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = seconds(lambda: k_center(points, options.picks, labelled=labelled), 3)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    report: dict[str, object] = {
        **vars(options),
        "k_center_seconds": round(ours, 3),
        "k_center_extra_mb": round(memory),
    }

    # The loop's cost is linear in what is labelled and picked: a part of it is measured, and the rest counted.
    part = max(1, options.labelled // 50)
    loop = seconds(lambda: naive_loop(points, labelled[:part], 1), 1) / part
    centres = sum(options.labelled + done for done in range(options.picks))
    report["times_faster_than_naive_loop"] = round(loop * centres / ours, 1)
    if 8 * options.tiles**2 <= 4 * 2**30:
        table = seconds(lambda: full_table(points, labelled, options.picks), 1)
        report["times_faster_than_full_table"] = round(table / ours, 1)
        report["times_less_memory_than_full_table"] = round(8 * options.tiles**2 / 2**20 / max(1.0, memory), 1)
        same = (
            full_table(points, labelled, options.picks)
            == k_center(points, options.picks, labelled=labelled).indexes.tolist()
        )
        report["same_picks_as_full_table"] = same
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
