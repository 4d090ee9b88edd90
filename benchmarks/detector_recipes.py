"""Unimodal pretraining and fine-tuning against joint training: what each costs to the same validation AP50.

    python -m benchmarks.detector_recipes [--dataset DIR] [--seeds 0] [--joint N ...] [--pretrain N] [--finetune N ...]

Per seed, one detector per modality is pretrained, a multimodal one is fine-tuned from them, and another is trained
jointly from scratch, each in a process of its own. Joint training and fine-tuning are stopped every few steps and
measured on the validation split; those evaluations count in no one's seconds. Targets are shares of the best AP50 that
joint training reaches; the first measurement at or above one gives its time. Where a schedule ends, its learning rate
is low and AP high, so both are done in several lengths, and whichever is quickest to a target counts.

Two ratios of seconds, because they answer different questions: fine-tuning alone (the unimodal models exist already, as
in the paper's claim), and with all pretraining. Without --dataset one is generated (`manage.py generate_dataset`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARES = (0.5, 0.75, 0.9, 0.95)


def run_arm(task: dict[str, Any]) -> dict[str, Any]:
    """Train one detector, stopping every ``every`` steps to measure it (0: only at the end); runs in its own process.

    Returns:
        ``curve``: [steps, seconds of training, AP50 on val]; ``seconds`` without evaluations.
    """
    import torch

    from ml_backend.detector import DetectorConfig, TrainingStoppedError, read_dataset, train
    from ml_backend.detector.devices import choose_device

    config = DetectorConfig.from_json(task["config"]).resolve(read_dataset(task["dataset"]))
    out, device = Path(task["out"]), choose_device(task["device"])
    curve: list[tuple[int, float, float]] = []
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return bool(task["every"]) and steps % task["every"] == 0 and steps < config.iterations

    while True:
        try:
            result = train(
                task["dataset"], out, config, init=task["init"] or None, device=task["device"], should_stop=stop
            )
            break
        except TrainingStoppedError:
            state = torch.load(out / "state.pth", map_location=device, weights_only=True)
            curve.append((state["step"], state["seconds"], ap50_of(state["model"], task, config, device)))
    own = result.seconds - result.metrics["seconds"]
    curve.append((result.iterations, own, result.metrics["ap50"]))
    return {"curve": curve, "seconds": own}


def ap50_of(weights: dict[str, Any], task: dict[str, Any], config: Any, device: Any) -> float:
    """AP50 on val of weights that a training has saved."""
    from ml_backend.detector import read_dataset
    from ml_backend.detector.evaluation import evaluate_detector
    from ml_backend.detector.inference import Detector
    from ml_backend.detector.model.build import build_model
    from ml_backend.detector.training.warmstart import open_init
    from ml_backend.detector.validation import check_dataset

    dataset = read_dataset(task["dataset"])
    start = open_init(task["init"] or None, config, dataset)
    specs = tuple(start.normalise(spec) for spec in check_dataset(dataset, config.modalities, ["train", "val"]))
    dataset = dataset.with_modalities(specs)
    model = build_model(config, specs, len(dataset.classes))
    model.load_state_dict(weights)
    reduction = config.reduction(dataset.longest_side)
    detector = Detector(model.to(device), config, dataset.classes, specs, device, reduction=reduction)
    return float(evaluate_detector(detector, dataset, "val").ap50)


def apart(task: dict[str, Any]) -> dict[str, Any]:
    """Run an arm in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.detector_recipes", "--arm", json.dumps(task)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def run_seed(options: argparse.Namespace, dataset: Path, folder: Path, seed: int) -> dict[str, Any]:
    """All arms of one seed."""
    from contracts.stages import PRETRAINING_SEEDS

    modalities = [entry["name"] for entry in json.loads((dataset / "dataset.json").read_text())["modalities"]]
    base = {"size": options.size, "batch_size": options.batch_size, "modalities": modalities, "save_interval": 1000}

    def arm(name: str, *, every: int, init: dict[str, str], **config: Any) -> dict[str, Any]:
        task = {
            "dataset": str(dataset),
            "out": str(folder / f"{name}-{seed}"),
            "config": {**base, "seed": seed, **config},
            "init": init,
            "every": every,
            "device": options.device,
        }
        print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
        return apart(task)

    joint = [arm(f"joint-{steps}", every=options.every, init={}, iterations=steps) for steps in sorted(options.joint)]
    pretraining = {
        name: arm(
            f"pretrain-{name}",
            every=0,
            init={},
            iterations=options.pretrain,
            modalities=[name],
            seed=seed + PRETRAINING_SEEDS,
        )
        for name in modalities
    }
    checkpoints = {name: str(folder / f"pretrain-{name}-{seed}" / "checkpoint") for name in modalities}
    tuned = [
        arm(f"finetune-{steps}", every=options.every, init=checkpoints, iterations=steps)
        for steps in sorted(options.finetune)
    ]
    return {"seed": seed, "joint": joint, "finetune": tuned, "pretraining": pretraining}


def level(seed: dict[str, Any], share: float) -> dict[str, float | None]:
    """What it takes to reach a share of the best AP50 of a seed's joint training; None where it is not reached."""
    target = share * max(ap50 for arm in seed["joint"] for _, _, ap50 in arm["curve"])
    joint, tuned = quickest(seed["joint"], target), quickest(seed["finetune"], target)
    whole = None if tuned is None else tuned + sum(arm["seconds"] for arm in seed["pretraining"].values())
    return {
        "share": share,
        "target_ap50": target,
        "joint_seconds": joint,
        "finetune_seconds": tuned,
        "ratio": tuned / joint if tuned and joint else None,
        "ratio_with_pretraining": whole / joint if whole and joint else None,
    }


def quickest(arms: list[dict[str, Any]], target: float) -> float | None:
    """Seconds of the training that comes to the target first; None where none does."""
    return min((t for arm in arms if (t := first(arm["curve"], target)) is not None), default=None)


def first(curve: list[list[float]], target: float) -> float | None:
    """Seconds to the first measurement at or above the target; None where there is none, or nothing to reach."""
    return next((seconds for _, seconds, ap50 in curve if ap50 >= target > 0), None)


def generate(folder: Path) -> Path:
    """A generated dataset of colour and elevation."""
    out = folder / "generated"
    command = [sys.executable, "manage.py", "generate_dataset", "--out", str(out)]
    subprocess.run([*command, "--modalities", "rgb", "relative_elevation"], cwd=ROOT, check=True, stdout=sys.stderr)
    return out


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="dataset directory (default: one is generated)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument(
        "--joint", type=int, nargs="+", default=[250, 400, 650], help="steps of joint trainings (default: %(default)s)"
    )
    parser.add_argument("--pretrain", type=int, default=400, help="steps per modality (default: %(default)s)")
    parser.add_argument(
        "--finetune", type=int, nargs="+", default=[75, 125, 250], help="steps of fine-tunings (default: %(default)s)"
    )
    parser.add_argument("--every", type=int, default=25, help="steps between measurements (default: %(default)s)")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=SHARES, help="of joint training's best AP50 (default: %(default)s)"
    )
    parser.add_argument("--size", default="nano", help="model size (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, help="tiles per step (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(run_arm(json.loads(options.arm))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset = options.dataset.absolute() if options.dataset else generate(folder)
        seeds = [run_seed(options, dataset, folder, seed) for seed in options.seeds]
    settings = {key: value for key, value in vars(options).items() if key not in ("dataset", "arm", "seeds", "shares")}
    for seed in seeds:
        seed["levels"] = [level(seed, share) for share in options.shares]
    print(json.dumps({**settings, "seeds": seeds}, indent=2))


if __name__ == "__main__":
    main()
