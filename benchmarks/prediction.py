"""How much of the time of predicting a campaign's tiles is the model's own.

    python -m benchmarks.prediction [--tiles 256] [--rounds 3] [--checkpoint DIR]

A scene of its own (RGB and elevation, 3 m, 128 px tiles) in a throwaway PostGIS. In every round the job reads,
predicts and stores all tiles, and the model alone predicts the same chips, read beforehand; both load the checkpoint.
The ratio is the model's seconds over the job's, of each round, by the clock and by this process's time of the processor
(all that compares fairly on a busy machine); the median counts. Without a checkpoint the network has random weights,
and is made so sure of nothing being there that it still outlines some ten instances per tile, each in many rings.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.database import throwaway
from benchmarks.release import make_campaign, make_rasters

SIZE = 128


def make_network(campaign: Any, checkpoint: Path | None, doubt: float) -> Any:
    """A registered model version: the checkpoint, or a network of random weights."""
    import shutil

    import torch

    from ml_backend.detector.checkpoint import open_checkpoint, write_checkpoint
    from ml_backend.detector.config import DetectorConfig
    from ml_backend.detector.dataset import ModalitySpec
    from ml_backend.detector.model import build_model
    from thawloop.core.storage import artifact
    from thawloop.registry.models import ModelVersion
    from thawloop.training.architecture import Architecture

    wanted, path = Architecture.wanted(campaign), "models/bench/bench-v1"
    if checkpoint is not None:
        shutil.copytree(checkpoint, artifact(path))
        card = dict(open_checkpoint(checkpoint).card)
    else:
        config = DetectorConfig(modalities=tuple(wanted.names), anchor=wanted.anchor)
        specs = [ModalitySpec(n, b, mean=(1500.0,) * len(b), std=(900.0,) * len(b)) for n, b in wanted.modalities]
        torch.manual_seed(0)
        weights = build_model(config, specs, len(wanted.classes)).state_dict()
        for name, tensor in weights.items():
            if name.endswith("fc_cls.bias"):
                tensor[-1] += doubt  # the last class is the background
        card = dict(
            write_checkpoint(
                artifact(path),
                weights,
                {
                    "architecture": wanted.version,
                    "config": config.to_json(),
                    "classes": list(wanted.classes),
                    "modalities": [spec.to_json() for spec in specs],
                    "tile_size": SIZE,
                },
            ).card
        )
    return ModelVersion.objects.create(
        campaign=campaign, name="bench-v1", number=1, path=path, checksum=card["weights"]["sha256"], card=card
    )


def predict_alone(version: Any, chips: list[Any]) -> int:
    """What the model does without the platform; the number of instances."""
    from ml_backend.detector import load
    from ml_backend.jobs.prediction import TILES_AT_ONCE
    from ml_backend.jobs.resources import ready_device
    from thawloop.core.storage import artifact

    detector = load(artifact(version.path), ready_device())
    batches = [chips[start : start + TILES_AT_ONCE] for start in range(0, len(chips), TILES_AT_ONCE)]
    return sum(len(result.detections) for batch in batches for result in detector.predict(batch))


def measure(root: Path, tiles: int, rounds: int, checkpoint: Path | None, doubt: float) -> None:
    """Fill the campaign, take turns, print."""
    from labeling.models import PredictedInstance, Prediction
    from ml_backend.detector import ChipInput
    from thawloop.catalog.chips import ChipReader
    from thawloop.catalog.models import Modality, Tile
    from thawloop.core.jobs import run_inline
    from thawloop.registry.services import request_predictions

    side = max(2, round(tiles**0.5))
    make_rasters(root, side, SIZE)
    campaign = make_campaign(root, side, SIZE)
    version = make_network(campaign, checkpoint, doubt)
    with ChipReader(list(Modality.objects.all())) as reader:
        found = Tile.objects.select_related("grid").order_by("row", "col")
        chips = [ChipInput(chip.arrays, chip.valid) for chip in map(reader.read, found)]
    predict_alone(version, chips[:8])
    ratios, of_processor = [], []
    for _ in range(rounds):
        PredictedInstance.objects.all().delete()
        Prediction.objects.all().delete()
        started, worked = time.perf_counter(), time.process_time()
        job = run_inline(request_predictions(campaign, version).pk)
        whole, whole_work = time.perf_counter() - started, time.process_time() - worked
        assert job.state == "succeeded", job.error
        assert Prediction.objects.count() == len(chips)
        started, worked = time.perf_counter(), time.process_time()
        instances = predict_alone(version, chips)
        alone, alone_work = time.perf_counter() - started, time.process_time() - worked
        ratios.append(alone / whole)
        of_processor.append(alone_work / whole_work)
        shares = f"job {whole:.1f} s, model alone {alone:.1f} s, ratio {ratios[-1]:.2f} ({of_processor[-1]:.2f})"
        print(f"{len(chips)} tiles, {instances} instances: {shares}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}, by processor time {statistics.median(of_processor):.2f}")


def main() -> None:
    """Start a throwaway PostGIS, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiles", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, help="of a detector of rgb and dem")
    parser.add_argument(
        "--doubt", type=float, default=2.9, help="of the random network: more finds less (default: 2.9)"
    )
    parser.add_argument("--threads", type=int, default=0, help="torch's (default: all cores)")
    options = parser.parse_args()
    with throwaway(THAWLOOP_TORCH_THREADS=str(options.threads)) as root:
        measure(root, options.tiles, options.rounds, options.checkpoint, options.doubt)


if __name__ == "__main__":
    main()
