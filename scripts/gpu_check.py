#!/usr/bin/env python3
"""What the detector does on a GPU, in at most eight minutes: speed, memory, bfloat16, resuming, prediction.

    python3 scripts/gpu_check.py --out gpu-check [--wheels wheels] [--seconds 460] [--only SECTION ...] [--small]

Written to OUT after every section, as results.json and results.md: how fast nano and tiny train (in bfloat16) and
predict at 256 and 512 px, with peak memory and the share of the card's peak; nano and tiny beside stock mmdet, in the
same run; whether training goes on in smaller passes when the GPU's memory is really full; whether a training that is
killed (-9) goes on and ends; and whether the GPU finds what the CPU finds. A section that fails or outlasts its budget
is told so and costs no other section anything. Without a GPU the same runs on the CPU; what needs one says so.
`--small` takes the smallest sizes and a repetition of each.

A machine without a network and without the OpenMMLab packages gets wheels carried beside this script. Where there is a
network, write them into a folder (about 35 MB), for the GPU machine's Python:

    python3 scripts/gpu_check.py --list-wheels > wheels.txt
    python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \\
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any -d wheels -r wheels.txt

What has no wheel there, `python3 -m pip wheel --no-deps -w wheels NAME==VERSION` makes. torch, torchvision, numpy,
scipy, matplotlib, rich, einops, safetensors and PyYAML are expected on the GPU machine.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WHEELS = (
    "addict",
    "affine",
    "annotated-types",
    "faster-coco-eval",
    "model-index",
    "onedl-mmcv",
    "onedl-mmdetection",
    "onedl-mmengine",
    "onedl-mmpretrain",
    "ordered-set",
    "pycocotools",
    "pydantic",
    "pydantic-core",
    "rasterio",
    "shapely",
    "termcolor",
    "typing-inspection",
)
SPEEDS = (("nano", 256, 16), ("nano", 512, 8), ("tiny", 256, 8), ("tiny", 512, 4))  # size, pixels, tiles at once
SECONDS = 460  # of a lease of eight minutes
FREE_MB = 3_000  # what the rest of the GPU's memory is filled up to


@dataclass
class Section:
    """A part of the check: a child process that prints its result as JSON on its last line."""

    name: str
    command: list[str]
    budget: float
    needs: tuple[str, ...] = ()


@dataclass
class Result:
    """What became of a section: `done`, `skipped` or `failed`, and why."""

    name: str
    state: str
    seconds: float = 0.0
    why: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def sections(options: argparse.Namespace, work: Path) -> list[Section]:
    """All of them, the most telling first."""
    small, device = options.small, options.device
    own = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), "--work", str(work), "--device", device]
    own += ["--small"] if small else []
    speeds = (("nano", 64, 1),) if small else SPEEDS
    rounds, repeats = (2, 1) if small else (8, 8)
    found = [Section("machine", [*own, "--section", "machine"], 60)]
    for size, pixels, batch in speeds:
        load = {"modalities": 2, "size": size, "image_size": pixels, "batch_size": batch, "repeats": repeats}
        command = [
            sys.executable,
            "-m",
            "ml_backend.detector.comparison.throughput",
            json.dumps({**load, "device": device}),
        ]
        found.append(Section(f"speed {size} {pixels}", command, 60))
    for size, pixels, batch in speeds[:1] if small else (SPEEDS[0], SPEEDS[3]):
        words = ["--size", size, "--image-size", str(pixels), "--batch-size", str(batch), "--rounds", str(rounds)]
        command = [sys.executable, "-m", "benchmarks.detector_throughput", *words, "--device", device, "--json"]
        found.append(Section(f"stock {size} {pixels}", command, 90))
    found.append(Section("resume", [*own, "--section", "resume"], 120))
    found.append(Section("prediction", [*own, "--section", "prediction"], 60, needs=("resume",)))
    found.append(Section("memory", [*own, "--section", "memory"], 60))
    return [section for section in found if not options.only or section.name.split()[0] in options.only]


def run(
    section: Section, results: list[Result], environment: dict[str, str], left: float, scale: float = 1.0
) -> Result:
    """Run a section in a process group of its own, within its budget, times ``scale``, and what is left."""
    missing = [name for name in section.needs if not any(r.name == name and r.state == "done" for r in results)]
    if missing:
        return Result(section.name, "skipped", why=f"it needs the section '{missing[0]}'")
    if left < 5:
        return Result(section.name, "skipped", why="no time was left")
    limit, started = min(section.budget * scale, left), time.monotonic()
    process = subprocess.Popen(
        section.command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return Result(section.name, "failed", time.monotonic() - started, f"it took longer than {limit:.0f} s")
    finally:  # also when this is interrupted
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    seconds = time.monotonic() - started
    try:
        values = json.loads(out[out.index("{") :] if process.returncode == 0 else "")
    except ValueError:
        lines = err.strip().splitlines() or [f"it ended with code {process.returncode}"]
        return Result(section.name, "failed", seconds, lines[-1][:500])
    skipped = values.pop("skipped", "")
    return Result(section.name, "skipped" if skipped else "done", seconds, skipped, values)


def write(folder: Path, results: list[Result], whole: float) -> None:
    """Both files, as far as things are known."""
    report = {"seconds": whole, "sections": [asdict(result) for result in results]}
    (folder / "results.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    (folder / "results.md").write_text(markdown(results, whole), encoding="utf-8")


def markdown(results: list[Result], whole: float) -> str:
    """The report that docs/detector.md takes."""
    by_name = {result.name: result for result in results}
    machine = by_name["machine"].values if "machine" in by_name else {}
    lines = [f"{machine.get('device', 'unknown device')}, torch {machine.get('torch', '?')}; {whole:.0f} s in all.", ""]
    speeds = [result for result in results if result.name.startswith("speed") and result.state == "done"]
    if speeds:
        lines += ["| model, two modalities | precision | training, images/s | prediction, images/s | peak MB | MFU |"]
        lines += ["|---|---|---|---|---|---|"]
    for result in speeds:
        row = result.values
        share = f"{row['utilisation']:.1%}" if row["utilisation"] is not None else "unknown"
        figures = f"{row['training']:.1f} | {row['inference']:.1f} | {row['peak_memory_mb']:,.0f} | {share}"
        lines.append(f"| {result.name.removeprefix('speed ')} px | {row['precision']} | {figures} |")
    stock = [result for result in results if result.name.startswith("stock") and result.state == "done"]
    if stock:
        lines += ["", "| against stock mmdet, one modality | training, times | prediction, times |", "|---|---|---|"]
    for result in stock:
        times = [result.values[part]["speed_against_stock"] for part in ("training", "inference")]
        cells = [f"{t['median']:.2f} ({t['low']:.2f} to {t['high']:.2f})" for t in times]
        lines.append(f"| {result.name.removeprefix('stock ')} px | {cells[0]} | {cells[1]} |")
    lines += ["", "| section | | seconds | |", "|---|---|---|---|"]
    for result in results:
        plain = {k: v for k, v in result.values.items() if isinstance(v, str | int | float)}
        told = result.why or ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in plain.items())
        said = told if result.name in ("resume", "prediction", "memory", "machine") or result.why else ""
        lines.append(f"| {result.name} | {result.state} | {result.seconds:.0f} | {said} |")
    return "\n".join(lines) + "\n"


# What the sections do, each in a process of its own.


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What there is, and how fast a matrix product is."""
    import torch

    from ml_backend.detector.devices import choose_device

    device = choose_device(options.device)
    side, kind = (8192, torch.bfloat16) if device.type == "cuda" else (512, torch.float32)
    matrix = torch.randn(side, side, device=device, dtype=kind)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # waits for the GPU
        taken.append(time.perf_counter() - started)
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "device": "cpu",
        "matrix_tflops": 2 * side**3 / min(taken) / 1e12,
    }
    if device.type == "cuda":
        found |= {
            "device": torch.cuda.get_device_name(device),
            "memory_mb": torch.cuda.get_device_properties(device).total_memory / 2**20,
            "bfloat16": torch.cuda.is_bf16_supported(),
        }
    return found


def make_dataset(folder: Path, pixels: int, splits: dict[str, int]) -> None:
    """Noise in two modalities, with two bright ellipses per tile to be found."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    from ml_backend.detector.comparison.throughput import Load, tiles
    from ml_backend.detector.masks import encode_rle

    specs = Load(modalities=2).specs()
    (folder / "annotations").mkdir(parents=True)
    for spec in specs:
        (folder / "chips" / spec.name).mkdir(parents=True)
    for seed, (split, count) in enumerate(splits.items()):
        chips, samples = tiles(Load(modalities=2, image_size=pixels, batch_size=count, seed=seed))
        images, annotations = [], []
        for number, (chip, sample) in enumerate(zip(chips, samples, strict=True), start=1):
            name = f"{split}{number}.tif"
            images.append({"id": number, "file_name": name, "width": pixels, "height": pixels})
            for mask in np.asarray(sample.gt_instances.masks.masks, dtype=bool):
                rle = encode_rle(mask)
                known = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
                shape = {"size": rle["size"], "counts": rle["counts"].decode()}
                annotations.append(
                    {**known, "bbox": [int(v) for v in box], "area": int(mask.sum()), "segmentation": shape}
                )
            for spec in specs:
                array, place = chip.arrays[spec.name], from_origin(0, 0, 3, 3)
                profile = {
                    "count": len(array),
                    "height": pixels,
                    "width": pixels,
                    "dtype": "float32",
                    "crs": "EPSG:3413",
                }
                with rasterio.open(
                    folder / "chips" / spec.name / name, "w", "GTiff", transform=place, **profile
                ) as file:
                    file.write(array)
        coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(coco), encoding="utf-8")
    meta = {
        "name": "gpu-check",
        "version": "1",
        "classes": ["object"],
        "modalities": [{"name": spec.name, "bands": list(spec.bands)} for spec in specs],
    }
    (folder / "dataset.json").write_text(json.dumps(meta), encoding="utf-8")


def resume(options: argparse.Namespace) -> dict[str, Any]:
    """Train; train again and be killed as soon as a state is saved; go on. Both must end, and find about as much."""
    pixels, steps = (64, 6) if options.small else (256, 60)
    dataset = options.work / "data"
    make_dataset(dataset, pixels, {"train": 8, "val": 2 if options.small else 8})
    size = ["--size", "nano", "--device", options.device, "--batch-size", "2" if options.small else "8"]
    steering = ["--iterations", str(steps), "--warmup", "2", "--save-interval", str(max(1, steps // 6)), "--json"]
    base = [sys.executable, "-m", "ml_backend.detector", "train", "--dataset", str(dataset), *size, *steering]

    def train(name: str) -> tuple[dict[str, Any], float]:
        started = time.perf_counter()
        subprocess.run([*base, "--out", str(options.work / name)], check=True, stdout=subprocess.DEVNULL)
        card = json.loads((options.work / name / "checkpoint" / "model.json").read_text(encoding="utf-8"))
        return card, time.perf_counter() - started

    whole, seconds = train("whole")
    killed = subprocess.Popen([*base, "--out", str(options.work / "killed")], stdout=subprocess.DEVNULL)
    while not (options.work / "killed" / "state.pth").exists():
        if killed.poll() is not None:
            raise SystemExit(f"the training ended with code {killed.returncode} before it could be killed")
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    died = not (options.work / "killed" / "checkpoint" / "model.json").exists()
    resumed, rest = train("killed")
    return {
        "precision": whole["training"]["precision"],
        "killed_before_its_end": died,
        "steps": [whole["iterations"], resumed["iterations"]],
        "ap50": whole["metrics"]["ap50"],
        "ap50_resumed": resumed["metrics"]["ap50"],
        "peak_mb": whole["training"]["peak_memory_mb"],
        "seconds_whole": seconds,
        "seconds_after_the_kill": rest,
    }


def prediction(options: argparse.Namespace) -> dict[str, Any]:
    """Predict the same tiles on the device and on the CPU: how many finds are the same, and how fast."""
    from ml_backend.detector import load, read_dataset
    from ml_backend.detector.chips import read_tile
    from ml_backend.detector.inference.parity import matching

    checkpoint = options.work / "whole" / "checkpoint"
    one, other = load(checkpoint, options.device), load(checkpoint, "cpu")
    dataset = read_dataset(options.work / "data").with_modalities(one.modalities)
    tiles = dataset.tiles("val")
    chips = [read_tile(dataset, one.modalities, tile) for tile in tiles]
    one.predict(chips[:1])
    started = time.perf_counter()
    there = one.predict(chips)
    taken = time.perf_counter() - started
    here = other.predict(chips)
    pairs = list(zip(tiles, there, here, strict=True))
    same = sum(matching(a.detections, b.detections, (tile.height, tile.width)) for tile, a, b in pairs)
    most = sum(max(len(a.detections), len(b.detections)) for _, a, b in pairs)
    return {"device": str(one.device), "finds": most, "same_as_on_the_cpu": same / most if most else 1.0,
            "images_per_second": len(chips) / taken}  # fmt: skip


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Fill the GPU's memory, train with more tiles at once than the rest holds: it must go on in smaller passes."""
    import torch

    from ml_backend.detector.devices import choose_device

    device = choose_device(options.device)
    if device.type != "cuda":
        return {"skipped": "it needs a GPU whose memory can be filled"}
    from ml_backend.detector import DetectorConfig, train

    make_dataset(options.work / "many", 512, {"train": 32})
    free, _ = torch.cuda.mem_get_info(device)
    filled = torch.empty(max(0, free - (FREE_MB << 20)), dtype=torch.uint8, device=device)
    config = DetectorConfig(size="nano", iterations=2, batch_size=32, warmup=1, save_interval=2)
    result = train(options.work / "many", options.work / "memory", config, device=options.device)
    card = json.loads((result.checkpoint / "model.json").read_text(encoding="utf-8"))
    at_once = card["training"]["tiles_at_once"]
    if at_once >= config.batch_size:
        raise SystemExit(f"{config.batch_size} tiles fitted into {FREE_MB} MB: nothing was shown")
    return {"filled_mb": filled.numel() / 2**20, "asked_for": config.batch_size, "at_once": at_once,
            "steps": result.iterations}  # fmt: skip


OWN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "machine": machine,
    "resume": resume,
    "prediction": prediction,
    "memory": memory,
}


def install(wheels: Path, site: Path) -> None:
    """Put carried wheels into a folder of their own."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise SystemExit(f"{wheels} holds no wheels: see this script's own description for how to make them.")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, *files], check=True)


def pinned() -> list[str]:
    """The wheels to carry, in the versions that this source tree is tested with."""
    lines = (ROOT / "requirements" / "worker.txt").read_text(encoding="utf-8").splitlines()
    versions = {line.split("==")[0]: line.split(" ")[0] for line in lines if "==" in line and line[0].isalpha()}
    return [versions[name] for name in WHEELS]


def main() -> int:
    """Run all sections; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder to write (default: %(default)s)")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install for this run")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", metavar="SECTION", help="machine, speed, stock, resume, prediction, memory"
    )
    parser.add_argument("--small", action="store_true", help="smallest sizes, one repetition")
    parser.add_argument("--list-wheels", action="store_true", help="print what to carry, as requirements")
    parser.add_argument("--section", choices=OWN, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list_wheels:
        print("\n".join(pinned()))
        return 0
    if options.section:
        print(json.dumps(OWN[options.section](options)))
        return 0
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="thawloop-gpu-check-") as folder:
        work = Path(folder)
        if options.wheels:
            install(options.wheels, work / "site")
        path = os.pathsep.join(filter(None, (str(ROOT), str(work / "site"), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        for section in sections(options, work):
            left = options.seconds - (time.monotonic() - began)
            results.append(run(section, results, environment, left, options.seconds / SECONDS))
            write(options.out, results, time.monotonic() - began)
            print(
                f"{results[-1].name}: {results[-1].state} in {results[-1].seconds:.0f} s {results[-1].why}", flush=True
            )
    print((options.out / "results.md").read_text(encoding="utf-8"))
    return int(any(result.state == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
