#!/usr/bin/env python3
"""Make the detector's evidence again: datasets, comparisons over seeds, benchmarks; then fill docs/detector.md.

    python scripts/detector_evidence.py --work var/evidence [--only generated noise crowns glacier recipes ...]

Interrupted, the same command continues. Real scenes come from the folders that examples/*.toml name. Everything runs
on the CPU, two trainings at a time with one thread each: a training step of `nano` is too small for two threads.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "detector.md"
PYTHON = [sys.executable]
GENERATED = ["manage.py", "generate_dataset", "--modalities", "rgb", "relative_elevation"]
# what each dataset is made by, and what is compared on it
LONG = "--pretrain-iterations 400 --iterations 250"
SHORT = "--pretrain-iterations 300 --iterations 150"
DATASETS = {
    "generated": (GENERATED, LONG),
    "noise": (
        [*GENERATED, "--noise", "relative_elevation"],
        f"{SHORT} --recipes staged --fusions residual_cross_attention conv",
    ),
    "crowns": (
        ["manage.py", "dataset", "examples/crowns.toml"],
        f"{SHORT} --recipes staged --anchors rgb canopy_height",
    ),
    "glacier": (["manage.py", "dataset", "examples/glacier.toml"], f"{SHORT} --recipes staged"),
}
BENCHMARKS = {
    "recipes": ["-m", "benchmarks.detector_recipes", "--device", "cpu"],
    "augmentation": ["-m", "benchmarks.detector_augmentation", "--device", "cpu"],
    "throughput": ["-m", "benchmarks.detector_throughput", "--device", "cpu", "--rounds", "30", "--json"],
    "throughput-tiny": [
        *("-m", "benchmarks.detector_throughput", "--device", "cpu", "--rounds", "7", "--json"),
        *("--size", "tiny", "--image-size", "256", "--batch-size", "2"),
    ],
    "inference": ["-m", "benchmarks.detector_inference", "--json"],
}


def compare(name: str, work: Path, options: argparse.Namespace) -> None:
    """Make the dataset if it is not there, and compare on it."""
    make, choice = DATASETS[name]
    dataset = work / "datasets" / name
    if not (dataset / "dataset.json").is_file():
        dataset.parent.mkdir(parents=True, exist_ok=True)
        call([*make, "--out", str(dataset)])
    seeds = list(map(str, options.seeds))
    command = ["-m", "ml_backend.detector", "compare", "--dataset", str(dataset), "--out", str(work / name)]
    call([*command, *choice.split(), "--seeds", *seeds, "--jobs", str(options.jobs), "--device", "cpu"])


def benchmark(name: str, work: Path, options: argparse.Namespace) -> None:
    """Run a benchmark and keep its JSON."""
    file = work / f"{name}.json"
    if file.is_file():
        return
    seeds = ["--seeds", *map(str, options.seeds)] if name in ("recipes", "augmentation") else []
    printed = call([*BENCHMARKS[name], *seeds], stdout=subprocess.PIPE).stdout
    file.write_text(printed, encoding="utf-8")


def call(words: list[str], stdout: int | None = None) -> "subprocess.CompletedProcess[str]":
    """Run one of our commands; its failure ends this."""
    print("+", " ".join(words), file=sys.stderr, flush=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*PYTHON, *words], cwd=ROOT, env=environment, stdout=stdout, text=True, check=True)


def fill(text: str, tables: dict[str, str]) -> str:
    """Put tables between `<!-- table: NAME -->` and `<!-- end: NAME -->`; what is not measured stays as it is."""
    for name, table in tables.items():
        start, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        if start in text:
            before, rest = text.split(start, 1)
            text = f"{before}{start}\n{table.strip()}\n{rest[rest.index(end) :]}"
    return text


def tables_of(work: Path) -> dict[str, str]:
    """A table for every result in the folder."""
    tables = {}
    for name in DATASETS:
        file = work / name / "comparison.md"
        if file.is_file():
            text = file.read_text(encoding="utf-8").split("\n", 2)[2]
            tables[name] = text.partition("\n\nSeconds are")[0]  # what is the same in all stands above them
    for name in ("throughput", "throughput-tiny"):
        if (file := work / f"{name}.json").is_file():
            tables[name] = throughput_table(json.loads(file.read_text(encoding="utf-8")))
    if (file := work / "recipes.json").is_file():
        tables["recipes"] = recipes_table(json.loads(file.read_text(encoding="utf-8")))
    if (file := work / "augmentation.json").is_file():
        tables["augmentation"] = augmentation_table(json.loads(file.read_text(encoding="utf-8")))
    if (file := work / "inference.json").is_file():
        tables["inference"] = inference_table(json.loads(file.read_text(encoding="utf-8")))
    return tables


def inference_table(rows: list[dict]) -> str:
    """Milliseconds per tile of every way, and how many times faster it is than eager."""
    lines = [
        "Two modalities, at most ten instances per tile; medians; ratios above 1 are faster than eager.",
        "",
        "| size | pixels | batch | way | ms per tile | ratio | CPU ms per tile | ratio |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        ways = [row["way"], f"{row['ms_per_tile']:.0f}", f"{row['times_faster']:.2f}"]
        cells = [row["size"], row["pixels"], row["batch"], *ways, f"{row['cpu_ms_per_tile']:.0f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['times_less_cpu']:.2f} |")
    return "\n".join(lines)


def throughput_table(report: dict) -> str:
    """Images per second and the two ratios."""
    lines = [
        f"{report['size']}, {report['image_size']} px, batch {report['batch_size']}, {report['device']}, "
        f"{report['threads']} threads; median (quartiles) of {report['rounds']} rounds; images/s by the clock, ratios "
        f"of {report['ratios_of']}.",
        "",
        "| | training | inference |",
        "|---|---|---|",
    ]
    stages = [report["training"], report["inference"]]
    for who in report["inference"]["images_per_second"]:
        cells = [quartiles(stage["images_per_second"].get(who)) for stage in stages]
        lines.append(f"| {who}, images/s | {' | '.join(cells)} |")
    for label, key in (
        ("one modality against stock, times", "speed_against_stock"),
        ("cost of an added modality, in backbones", "added_modality_in_backbones"),
    ):
        lines.append(f"| {label} | {' | '.join(quartiles(stage[key]) for stage in stages)} |")
    return "\n".join(lines)


def quartiles(value: dict[str, float] | None) -> str:
    """Median (low to high)."""
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})" if value else ""


def recipes_table(report: dict) -> str:
    """Per share of the best AP50 of joint training, and seed: the seconds to it and their ratios."""
    seeds = report["seeds"]
    lines = [
        f"{listed(report['joint'])} steps of joint training, {report['pretrain']} of pretraining per modality, "
        f"{listed(report['finetune'])} of fine-tuning, measured every {report['every']}; the quickest counts; one "
        f"entry per seed ({', '.join(str(seed['seed']) for seed in seeds)}).",
        "",
        "| share of joint's best AP50 | joint, s | fine-tuning, s | ratio | ratio with pretraining |",
        "|" + "---|" * 5,
    ]
    for levels in zip(*(seed["levels"] for seed in seeds), strict=True):
        keys = (("joint_seconds", 0), ("finetune_seconds", 0), ("ratio", 2), ("ratio_with_pretraining", 2))
        cells = [", ".join(figure(one[key], digits) for one in levels) for key, digits in keys]
        lines.append(f"| {levels[0]['share']:.0%} | {' | '.join(cells)} |")
    best = (
        f"{recipe} {', '.join(figure(max(best_of(arm) for arm in seed[key]), 3) for seed in seeds)}"
        for recipe, key in (("joint training", "joint"), ("fine-tuning", "finetune"))
    )
    return "\n".join([*lines, "", f"Best AP50 on val: {'; '.join(best)}."])


def augmentation_table(report: dict) -> str:
    """Accuracy of every way, and how it differs from the first."""
    lines = [
        f"{report['iterations']} steps of joint training of {report['size']}, seeds {listed(report['seeds'])}; mean ± "
        "standard deviation, and the paired difference with its 95 % interval over seeds.",
        "",
        "| augmentation | mask AP | AP50 | AP50 minus default |",
        "|---|---|---|---|",
    ]
    for way in report["ways"]:
        figures = [f"{way[name]['mean']:.3f} ± {way[name]['deviation']:.3f}" for name in ("ap", "ap50")]
        minus = way["minus_default"]
        difference = f"{minus['mean']:+.3f} ({minus['low']:+.3f} to {minus['high']:+.3f})" if minus else ""
        lines.append(f"| {way['way']} | {' | '.join(figures)} | {difference} |")
    return "\n".join(lines)


def best_of(arm: dict) -> float:
    """The best AP50 that a training was ever measured at."""
    return max(ap50 for _, _, ap50 in arm["curve"])


def listed(numbers: list[int]) -> str:
    """1, 2 and 3."""
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last


def figure(value: float | None, digits: int) -> str:
    """A number, or that a target was not reached."""
    return "not reached" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Run what has no result yet, then fill the document."""
    names = [*DATASETS, *BENCHMARKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for datasets and results")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {' '.join(names)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default: %(default)s)")
    parser.add_argument("--fill", action="store_true", help=f"write the tables into {DOCUMENT.relative_to(ROOT)}")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        started = time.monotonic()
        (compare if name in DATASETS else benchmark)(name, work, options)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if options.fill:
        DOCUMENT.write_text(fill(DOCUMENT.read_text(encoding="utf-8"), tables_of(work)), encoding="utf-8")


if __name__ == "__main__":
    main()
