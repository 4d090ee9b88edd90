"""How fast the detector trains and predicts, beside stock mmdet and per added modality.

    python benchmarks/detector_throughput.py [--size nano] [--image-size 128] [--batch-size 4] [--rounds 12] [--json]

The rival is mmdet's own Cascade Mask R-CNN (`CascadeRCNN` with `CascadeRoIHead`) on `mmpretrain.MViT`, of the same
architecture, head sizes, weights, tiles and optimizer. Two modalities start as their anchor's detector, so that all
find the same instances and differ in backbones and fusion alone. Contestants take turns within each round, and the
median of the rounds counts, because other work on the machine slows whoever is running. Ratios are taken per round,
on a CPU of processor seconds: those are the same on a busy machine.

Targets: at least 1.0 times stock's images per second with one modality, in training and in inference; an added
modality costs at most one backbone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ml_backend.detector.chips import network_input
from ml_backend.detector.comparison.throughput import Load, seconds, tiles, training_step
from ml_backend.detector.devices import choose_device
from ml_backend.detector.inference import Detector
from ml_backend.detector.model.build import build_model, model_config
from ml_backend.detector.model.openmmlab import MODELS, ConfigDict

WARMUP = 2


# our parts and the stock ones that they stand for
STOCK = {
    "MaskedMViT": "mmpretrain.MViT",
    "StagedCascadeRoIHead": "CascadeRoIHead",
    "Float32RoIExtractor": "SingleRoIExtractor",
    "IgnoringAssigner": "MaxIoUAssigner",
}


def stock_model(load: Load) -> Any:
    """mmdet's detector on one modality with the bands of ours, without anything of ours."""
    config = model_config(load.config(), load.specs(), 1)
    config["backbone"] = {**config["backbone"]["branch"], "in_channels": len(load.specs()[0].bands)}
    del config["backbone"]["activation_checkpointing"]
    return MODELS.build(ConfigDict(in_stock(config)))


def in_stock(config: Any) -> Any:
    """A config in which stock parts take the place of ours."""
    if isinstance(config, dict):
        return {key: STOCK.get(value, value) if key == "type" else in_stock(value) for key, value in config.items()}
    return [in_stock(part) for part in config] if isinstance(config, list) else config


def copy_weights(ours: Any, stock: Any) -> None:
    """Give stock the very weights of our single-modality detector."""
    stock.load_state_dict(
        {key.replace("backbone.branches.m1.", "backbone."): v for key, v in ours.state_dict().items()}
    )


def share_weights(one: Any, two: Any) -> None:
    """Start the two-modality detector as its anchor's (fresh fusions add nothing yet), so that both find the same."""
    two.load_state_dict({**two.state_dict(), **one.state_dict()})


def race(
    contestants: dict[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each contestant in each round, turns taken: by the clock (``wall``) and of the processor (``cpu``).

    All draw the same regions to learn from: how many of them hold an object decides what the mask head costs.
    """
    taken: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in contestants}
    for number in range(WARMUP + rounds):
        for name, call in contestants.items():
            torch.manual_seed(number)
            started = time.process_time()
            spent = seconds(call, device)
            if number >= WARMUP:
                taken[name]["wall"].append(spent)
                taken[name]["cpu"].append(time.process_time() - started)
    return taken


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Quartiles of the ratios of each round."""
    return quartiles([a / b for a, b in zip(above, below, strict=True)])


def backbone_pass(backbone: Any, image: torch.Tensor, *, backward: bool) -> Callable[[], None]:
    """One pass through a single MViT."""

    def call() -> None:
        with (
            torch.set_grad_enabled(backward),
            torch.autocast(image.device.type, torch.bfloat16, enabled=image.is_cuda and backward),
        ):
            maps = backbone(image)
        if backward:
            sum(part.float().mean() for part in maps).backward()
            backbone.zero_grad(set_to_none=True)

    return call


def measure(load: Load, rounds: int) -> dict[str, Any]:
    """Race training and inference."""
    device = choose_device(load.device)
    loads = {n: Load(**{**vars(load), "modalities": n}) for n in (1, 2)}
    torch.manual_seed(0)
    models = {n: build_model(loads[n].config(), loads[n].specs(), 1).to(device) for n in loads}
    stock = stock_model(loads[1]).to(device)
    fresh = {name: value.clone() for name, value in models[2].state_dict().items()}
    copy_weights(models[1], stock)
    share_weights(models[1], models[2])
    batches = {n: tiles(loads[n]) for n in loads}
    inputs = {n: [network_input(chip, loads[n].specs())[0] for chip in batches[n][0]] for n in loads}
    pixels = [tensor[: len(loads[1].specs()[0].bands)] for tensor in inputs[1]]
    image = torch.stack(pixels).to(device)
    branch = build_model(loads[1].config(), loads[1].specs(), 1).to(device).backbone.branches["m1"]

    training = race(
        {
            "stock mmdet": training_step(stock, pixels, batches[1][1], device),
            "one modality": training_step(models[1], inputs[1], batches[1][1], device),
            "two modalities": training_step(models[2], inputs[2], batches[2][1], device),
            "backbone": backbone_pass(branch, image, backward=True),
        },
        rounds,
        device,
    )
    for model in (*models.values(), stock, branch):
        model.eval()
    models[2].load_state_dict(fresh)
    copy_weights(models[1], stock)  # all find the same, and so do the same work after the backbone
    share_weights(models[1], models[2])
    detectors = {n: Detector(models[n], loads[n].config(), ("object",), loads[n].specs(), device) for n in loads}
    inference = race(
        {
            "stock mmdet": network(stock, pixels, batches[1][1]),
            "one modality": network(models[1], inputs[1], batches[1][1]),
            "two modalities": network(models[2], inputs[2], batches[2][1]),
            "backbone": backbone_pass(branch, image, backward=False),
            "one modality, from pixels to outlines": lambda: detectors[1].predict(
                batches[1][0], batch_size=load.batch_size
            ),
        },
        rounds,
        device,
    )
    clock = "wall" if device.type == "cuda" else "cpu"
    return {
        **{key: value for key, value in vars(load).items() if key not in ("modalities", "repeats")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "ratios_of": f"{clock} seconds",
        "training": judged(training, load.batch_size, clock),
        "inference": judged(inference, load.batch_size, clock),
    }


def network(model: Any, inputs: list[torch.Tensor], samples: list[Any]) -> Callable[[], None]:
    """Prediction from the normalised tensor to masks in the tile's pixels, mmdet's own way for either model."""

    @torch.inference_mode()
    def call() -> None:
        data = model.data_preprocessor({"inputs": list(inputs), "data_samples": [s.clone() for s in samples]})
        model.predict(data["inputs"], data["data_samples"], rescale=True)

    return call


def judged(taken: dict[str, dict[str, list[float]]], batch: int, clock: str) -> dict[str, Any]:
    """Images per second by the clock, and the ratios that the targets are about."""
    spent = {name: value[clock] for name, value in taken.items()}
    added = [two - one for one, two in zip(spent["one modality"], spent["two modalities"], strict=True)]
    return {
        "images_per_second": {
            name: quartiles([batch / value for value in values["wall"]]) for name, values in taken.items()
        },
        "speed_against_stock": ratio(spent["stock mmdet"], spent["one modality"]),
        "added_modality_in_backbones": ratio(added, spent["backbone"]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="nano", help="model size (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=128, help="side of the tiles (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, help="tiles at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="of which the median counts (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    started = time.perf_counter()
    load = Load(size=options.size, image_size=options.image_size, batch_size=options.batch_size, device=options.device)
    report = measure(load, options.rounds)
    report["seconds"] = time.perf_counter() - started
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(
        f"{load.size}, {load.image_size} px, batch {load.batch_size}, {report['device']}, {report['threads']} threads"
    )
    print(f"median and quartiles of {options.rounds} rounds; images/s by the clock, ratios of {report['ratios_of']}")
    for name in ("training", "inference"):
        print(f"\n{name:<40}{'images/s':>10}{'':>4}quartiles")
        for who, value in report[name]["images_per_second"].items():
            print(f"  {who:<38}{value['median']:>10.2f}    {value['low']:.2f} to {value['high']:.2f}")
        for label, key in (
            ("one modality against stock, times", "speed_against_stock"),
            ("cost of an added modality, backbones", "added_modality_in_backbones"),
        ):
            value = report[name][key]
            print(f"  {label:<38}{value['median']:>10.2f}    {value['low']:.2f} to {value['high']:.2f}")


if __name__ == "__main__":
    main()
