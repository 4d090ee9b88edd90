"""Images per second of a detector in training and inference, on generated tiles: what ``benchmark`` measures.

``python -m ml_backend.detector.comparison.throughput JSON`` measures one :class:`Load` and prints a :class:`Speed`, in
a separate process, since on a CPU the peak memory is that of the process.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from contracts.network import Fusion, Size
from ml_backend.detector.chips import ChipInput, network_input
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.data.samples import training_sample
from ml_backend.detector.dataset import AnnotatedInstance, ModalitySpec, Tile
from ml_backend.detector.devices import choose_device, peak_memory_mb
from ml_backend.detector.inference import Detector
from ml_backend.detector.model.build import build_model
from ml_backend.detector.training.precision import keep_predictions_in_float32

# dense bfloat16 FLOP/s of cards by their torch name, from NVIDIA's data sheets; others have no utilisation
PEAK_FLOPS = {
    "NVIDIA H200": 989.4e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
}
WARMUP = 2


@dataclass(frozen=True)
class Load:
    """What is measured: a model of ``modalities`` inputs (three bands, then one each) on square tiles of ``image_size``
    pixels; ``seed`` is that of weights, pixels and sampling.
    """

    size: Size = "nano"
    fusion: Fusion = DetectorConfig().fusion
    modalities: int = 1
    image_size: int = 128
    batch_size: int = 4
    repeats: int = 8
    device: str = "auto"
    seed: int = 0

    def specs(self) -> tuple[ModalitySpec, ...]:
        """The modalities, with mean 0 and standard deviation 1."""
        bands = [("a", "b", "c")] + [("a",)] * (self.modalities - 1)
        return tuple(
            ModalitySpec(f"m{i + 1}", names, None, None, (0.0,) * len(names), (1.0,) * len(names))
            for i, names in enumerate(bands)
        )

    def config(self) -> DetectorConfig:
        """The detector's configuration."""
        names = tuple(spec.name for spec in self.specs())
        return DetectorConfig(
            size=self.size, fusion=self.fusion, modalities=names, anchor=names[0], batch_size=self.batch_size
        )


@dataclass(frozen=True)
class Speed:
    """The result of a load; medians over its repeats.

    Attributes:
        training: images per second, forward, backward and optimizer.
        inference: images per second from pixels to outlines.
        found: detections per tile, which the speed of inference depends on.
        peak_memory_mb: of training, see :func:`ml_backend.detector.devices.peak_memory_mb`.
        flops: of one training step for one image, as torch counts them (matrix products and convolutions).
        utilisation: ``flops`` per second as a share of the card's dense bfloat16 peak; None where that is unknown.
    """

    modalities: int
    parameters: int
    training: float
    inference: float
    found: float
    peak_memory_mb: float
    flops: float
    precision: str
    device: str
    utilisation: float | None


def measure(load: Load) -> Speed:
    """Time training steps, then inference with what they trained.

    Raises:
        ConfigError: the load is invalid.
        DeviceError: this machine has no such device.
    """
    device = choose_device(load.device)
    torch.manual_seed(load.seed)
    config = load.config()
    model: Any = build_model(config, load.specs(), 1).to(device)
    chips, samples = tiles(load)
    step = training_step(model, [network_input(chip, load.specs())[0] for chip in chips], samples, device)
    with FlopCounterMode(display=False) as counter:
        step()
    taken = [seconds(step, device) for _ in range(WARMUP + load.repeats)][WARMUP:]
    memory = peak_memory_mb(device)
    detector = Detector(model.eval(), config, ("object",), load.specs(), device)
    found: list[int] = []

    def infer() -> None:
        results = detector.predict(chips, batch_size=load.batch_size)
        found[:] = [len(result.detections) for result in results]

    inferred = [seconds(infer, device) for _ in range(WARMUP + load.repeats)][WARMUP:]
    training = load.batch_size / statistics.median(taken)
    flops = counter.get_total_flops() / load.batch_size
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Speed(
        load.modalities,
        sum(parameter.numel() for parameter in model.parameters()),
        training,
        load.batch_size / statistics.median(inferred),
        statistics.fmean(found),
        memory,
        flops,
        "bfloat16" if device.type == "cuda" else "float32",
        name,
        utilisation(name, flops, training),
    )


def utilisation(device: str, flops: float, images_per_second: float) -> float | None:
    """Share of a card's dense bfloat16 peak that is used; None for devices without a known peak."""
    peak = PEAK_FLOPS.get(device)
    return flops * images_per_second / peak if peak else None


def tiles(load: Load) -> tuple[list[ChipInput], list[Any]]:
    """A batch of generated tiles, noise with two bright ellipses, and their mmdet DetDataSamples."""
    rng = np.random.default_rng(load.seed)
    side = load.image_size
    y, x = np.mgrid[:side, :side] / side
    chips, samples = [], []
    for number in range(load.batch_size):
        centres, radii = rng.uniform(0.25, 0.75, (2, 2)), rng.uniform(0.08, 0.2, (2, 2))
        shapes = np.stack(
            [((x - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 <= 1 for c, r in zip(centres, radii, strict=True)]
        )
        signal = 2.0 * shapes.any(axis=0)
        # seeded by tile and modality, so that a modality is the same with any number of others
        arrays = {
            spec.name: signal
            + np.random.default_rng((load.seed, number, i)).standard_normal((len(spec.bands), side, side))
            for i, spec in enumerate(load.specs())
        }
        chips.append(ChipInput({name: array.astype(np.float32) for name, array in arrays.items()}, {}))
        instances = (AnnotatedInstance(0, None, 0, False),) * len(shapes)
        samples.append(training_sample(Tile(number, f"{number}.tif", side, side, None, instances), shapes))
    return chips, samples


def training_step(
    model: Any, inputs: Sequence[torch.Tensor], samples: Sequence[Any], device: torch.device
) -> Callable[[], None]:
    """One optimizer step on a batch, in bfloat16 on a GPU, as in training.

    Args:
        model: an mmdet detector.
        inputs: of each tile, [channels, H, W].
        samples: mmdet's DetDataSample of each tile.
        device: where the model is.
    """
    if device.type == "cuda":
        keep_predictions_in_float32(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=DetectorConfig().learning_rate, fused=device.type == "cuda")

    def step() -> None:
        model.train()
        data = model.data_preprocessor({"inputs": list(inputs), "data_samples": list(samples)}, training=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, _ = model.parse_losses(model(**data, mode="loss"))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), DetectorConfig().grad_clip)
        optimizer.step()

    return step


def seconds(call: Callable[[], None], device: torch.device) -> float:
    """Seconds that a call takes, including work queued on the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure(Load(**json.loads(sys.argv[1]))))) + "\n")
