"""What ``benchmark`` measures is what the trainer does."""

import numpy as np
import pytest
import torch

from benchmarks.detector_throughput import copy_weights, stock_model
from ml_backend.detector.comparison import throughput
from ml_backend.detector.comparison.complexity import count_flops
from ml_backend.detector.comparison.throughput import Load, tiles, training_step
from ml_backend.detector.inference import Detector
from ml_backend.detector.model.build import build_model
from tests.detector.rounding import assert_same_but_for_rounding


def test_a_step_in_bfloat16_keeps_predictions_in_float32_as_the_trainer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load()
    model = build_model(load.config(), load.specs(), 1)
    kept: list[object] = []
    monkeypatch.setattr(throughput, "keep_predictions_in_float32", kept.append)
    training_step(model, [], [], torch.device("cpu"))
    assert kept == []
    monkeypatch.setattr(torch.optim, "AdamW", lambda *arguments, **options: None)  # its fused form wants a GPU
    training_step(model, [], [], torch.device("cuda"))
    assert kept == [model]


def test_tiles_are_their_seeds() -> None:
    first, again, other = (tiles(Load(modalities=2, image_size=32, seed=seed))[0] for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        for name, array in a.arrays.items():
            assert np.array_equal(array, b.arrays[name])
            assert not np.array_equal(array, c.arrays[name])


def test_operations_are_counted_whatever_kernel_computes_them() -> None:
    """Prediction on a CPU runs a fused attention, whose operations torch's counter leaves out; training does not."""
    load = Load()
    model = build_model(load.config(), load.specs(), 1).eval()
    detector = Detector(model, load.config(), ("object",), load.specs(), torch.device("cpu"))
    with torch.enable_grad():
        as_in_training = count_flops.__wrapped__(detector, 64, 64)
    assert count_flops(detector, 64, 64) == as_in_training


def test_the_rival_has_nothing_of_ours_but_its_weights() -> None:
    load = Load()
    ours, stock = build_model(load.config(), load.specs(), 1), stock_model(load)
    parts = [*stock.modules(), stock.rpn_head.assigner, *stock.roi_head.bbox_assigner]
    assert not [part for part in parts if type(part).__module__.startswith("ml_backend")]
    copy_weights(ours, stock)
    image = torch.rand(1, 3, 64, 64)
    whole = torch.cat([image, torch.ones(1, 1, 64, 64)], dim=1)
    with torch.no_grad():
        maps = ours.eval().backbone(whole), stock.eval().backbone(image)
    assert_same_but_for_rounding(*maps, stock.backbone)
