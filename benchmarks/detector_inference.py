"""How long the detector takes per tile on a CPU, and which way of running it is faster.

    python -m benchmarks.detector_inference [--json] [--rounds 3] [--only nano] [--threads N]

Every way predicts the same generated tiles through `Detector.predict`, outlines included. Two modalities (RGB and
elevation), random weights. A trained detector finds a handful of slumps on a tile, an untrained one 100: the heads keep
10 at most, so that the masks weigh what they would. Ways take turns, several rounds each, and the median counts; ratios
are against plain eager PyTorch in the same run, because milliseconds depend on the machine. Milliseconds of processor
time (all threads together) hold on a busy machine too. To stay within minutes, only `nano` is also compiled (its
backbone: what follows has shapes of its own on every tile), and large batches of `tiny` are run once. `--only`,
`--batch`, `--skip-compile` and `--skip-export` leave parts out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contracts.network import NETWORK_VERSION
from ml_backend.detector import ChipInput, Detector, DetectorConfig, ModalitySpec, load
from ml_backend.detector.checkpoint import Checkpoint, write_checkpoint
from ml_backend.detector.inference.export import export
from ml_backend.detector.model.build import build_model

MODALITIES = (
    ModalitySpec("rgb", ("red", "green", "blue"), mean=(0.3,) * 3, std=(0.1,) * 3),
    ModalitySpec("relative_elevation", ("relative_elevation",), mean=(0.0,), std=(10.0,)),
)
CASES = (("nano", 128, (1, 8)), ("tiny", 256, (1, 8)), ("tiny", 512, (1,)))
FOUND = 10


def checkpoint(folder: Path, size: str) -> Checkpoint:
    """An untrained detector."""
    torch.manual_seed(0)
    names = tuple(modality.name for modality in MODALITIES)
    config = DetectorConfig(size=size, modalities=names, anchor=names[0])
    model = build_model(config, MODALITIES, 1)
    modalities = [m.to_json() for m in MODALITIES]
    card = {"architecture": NETWORK_VERSION, "config": config.to_json(), "classes": ["RTS"], "modalities": modalities}
    return write_checkpoint(folder, model.state_dict(), card)


def tiles(pixels: int, count: int) -> list[ChipInput]:
    """Noise in the modalities' own units."""
    rng = np.random.default_rng(0)
    return [
        ChipInput(
            {
                m.name: rng.normal(m.mean[0], m.std[0], (len(m.bands), pixels, pixels)).astype(np.float32)
                for m in MODALITIES
            },
            {},
        )
        for _ in range(count)
    ]


def ways(opened: Checkpoint, folder: Path, pixels: int, options: argparse.Namespace) -> Iterator[tuple[str, Detector]]:
    """The detector, made ready in several ways."""
    plain = load(opened, "cpu")
    plain.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    yield "eager", plain
    last = load(opened, "cpu")  # what `nano` is by itself
    last.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    yield "channels_last", last
    if not options.skip_compile and opened.config.size == "nano":
        compiled = load(opened, "cpu")
        model: Any = compiled.model
        model.backbone.compile(dynamic=False)
        yield "torch.compile", compiled
    if not options.skip_export:
        out = folder / f"onnx-{pixels}"
        export(opened.path, out, size=(pixels, pixels), chips=tiles(pixels, 1))
        yield "ONNX Runtime", load(out)


def race(runs: dict[str, Callable[[], object]], rounds: int, warm: bool) -> dict[str, tuple[float, float]]:
    """Median wall and processor seconds of every way; they take turns. Unless warm, a first round does not count."""
    wall: dict[str, list[float]] = {way: [] for way in runs}
    cpu: dict[str, list[float]] = {way: [] for way in runs}
    for number in range(warm, rounds + 1):
        for way, run in runs.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            if number:
                wall[way].append(time.perf_counter() - start)
                cpu[way].append(time.process_time() - start_cpu)
    return {way: (statistics.median(wall[way]), statistics.median(cpu[way])) for way in runs}


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per case, batch size and way."""
    with tempfile.TemporaryDirectory() as name:
        for size, pixels, batches in CASES:
            if options.only and options.only not in (size, f"{size}-{pixels}"):
                continue
            folder = Path(name)
            ready = dict(ways(checkpoint(folder / size, size), folder, pixels, options))
            for detector in ready.values():
                model: Any = detector.model
                model.roi_head.test_cfg.max_per_img = FOUND
            for batch in [options.batch] if options.batch else batches:
                chips = tiles(pixels, batch)
                runs = {way: partial(detector.predict, chips, batch_size=batch) for way, detector in ready.items()}
                once = size == "tiny" and batch > 1 and not options.batch
                times = race(runs, 1 if once else options.rounds, warm=once)
                for way, (wall, cpu) in times.items():
                    yield {
                        "size": size,
                        "pixels": pixels,
                        "batch": batch,
                        "way": way,
                        "ms_per_tile": round(1000 * wall / batch, 1),
                        "cpu_ms_per_tile": round(1000 * cpu / batch, 1),
                        "times_faster": round(times["eager"][0] / wall, 2),
                        "times_less_cpu": round(times["eager"][1] / cpu, 2),
                    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--only", help="nano, tiny, tiny-256 or tiny-512")
    parser.add_argument("--batch", type=int, help="only this batch size")
    parser.add_argument("--skip-compile", action="store_true")
    parser.add_argument("--skip-export", action="store_true")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.json:
        print(json.dumps(list(measure(options)), indent=2))
        return
    print(f"{options.threads} threads, median of {options.rounds} rounds, {FOUND} instances per tile at most")
    print(
        f"{'size':<6}{'pixels':>7}{'batch':>7}  {'way':<16}{'ms/tile':>10}{'ratio':>8}{'CPU ms/tile':>13}{'ratio':>8}"
    )
    for row in measure(options):
        print(f"{row['size']:<6}{row['pixels']:>7}{row['batch']:>7}  {row['way']:<16}{row['ms_per_tile']:>10.1f}"
              f"{row['times_faster']:>8.2f}{row['cpu_ms_per_tile']:>13.1f}{row['times_less_cpu']:>8.2f}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
