"""One optimizer step: what it learns from, in how many passes, in which precision, and which parts it moves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from contracts.network import FUSIONS
from contracts.settings import LARGEST_SEED
from ml_backend.detector import (
    ConfigError,
    DatasetSpec,
    DetectorConfig,
    DeviceError,
    TrainResult,
    inspect,
    open_checkpoint,
    read_dataset,
    train,
)
from ml_backend.detector.data import TrainingBatches
from ml_backend.detector.model.build import build_model
from ml_backend.detector.training import learning_rate, loop
from ml_backend.detector.training.gradient import StepGradient
from ml_backend.detector.training.optimizer import make_optimizer, set_learning_rate
from ml_backend.detector.training.parts import freeze, set_training_mode
from ml_backend.detector.training.precision import choose_precision, keep_predictions_in_float32
from ml_backend.detector.training.selection import moving_average
from ml_backend.detector.training.team import Team
from ml_backend.detector.training.warmstart import open_init
from ml_backend.detector.validation import check_dataset

CPU = torch.device("cpu")


def exhaust_gpu() -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def exhaust_cpu() -> None:
    torch.empty(1 << 50)


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let the model of a training run out of memory beyond so many tiles; gives the sizes of the passes tried."""

    def limit(tiles: int, exhaust: Callable[[], object] = exhaust_gpu) -> list[int]:
        tried: list[int] = []

        def refuse(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if module.training:
                tried.append(len(inputs[0]))
                if len(inputs[0]) > tiles:
                    exhaust()

        def build(*arguments: Any) -> nn.Module:
            model = build_model(*arguments)
            model.backbone.register_forward_pre_hook(refuse)  # type: ignore[union-attr,arg-type]
            return model

        monkeypatch.setattr(loop, "build_model", build)
        return tried

    return limit


def fresh(dataset_dir: Path, config: DetectorConfig) -> tuple[Any, DetectorConfig]:
    """A model of the dataset, and its resolved configuration."""
    dataset = read_dataset(dataset_dir)
    resolved = config.resolve(dataset)
    torch.manual_seed(0)
    return build_model(resolved, dataset.modalities, len(dataset.classes)), resolved


def normalised(dataset_dir: Path) -> DatasetSpec:
    """The dataset with its normalisation."""
    dataset = read_dataset(dataset_dir)
    names = tuple(modality.name for modality in dataset.modalities)
    return dataset.with_modalities(tuple(check_dataset(dataset, names, ["train"])))


def images_of(batch: dict[str, Any]) -> list[torch.Tensor]:
    images: list[torch.Tensor] = batch["inputs"]
    return images


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 1), (2, 2), (1, 4)])
def test_accumulation_sees_the_same_tiles_in_the_same_order(
    batch_size: int, accumulate: int, dataset_dir: Path, quick: DetectorConfig
) -> None:
    dataset = normalised(dataset_dir)
    reference = TrainingBatches(dataset, replace(quick, batch_size=4).resolve(dataset))
    batches = TrainingBatches(dataset, replace(quick, batch_size=batch_size, accumulate=accumulate).resolve(dataset))
    for step in range(2):
        pairs = zip(images_of(batches[step]), images_of(reference[step]), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_processes_share_the_tiles_of_a_step(dataset_dir: Path, quick: DetectorConfig) -> None:
    dataset = normalised(dataset_dir)
    config = replace(quick, batch_size=4).resolve(dataset)
    whole = images_of(TrainingBatches(dataset, config)[1])
    shares = [images_of(TrainingBatches(dataset, config, range(first, first + 2))[1]) for first in (0, 2)]
    assert all(torch.equal(a, b) for a, b in zip([*shares[0], *shares[1]], whole, strict=True))


def test_a_step_that_processes_cannot_share_is_refused() -> None:
    assert [list(Team(rank, 2, rank).slots(4)) for rank in (0, 1)] == [[0, 1], [2, 3]]
    with pytest.raises(ConfigError, match=r"3 tiles of a step .* cannot be shared by 2 processes.* a multiple of 2"):
        Team(1, 2, 1).slots(3)


def test_the_largest_seed_has_a_step_of_its_own(dataset_dir: Path, quick: DetectorConfig) -> None:
    losses = []
    for seed in (LARGEST_SEED, LARGEST_SEED - 1):
        model, config = fresh(dataset_dir, replace(quick, seed=seed))
        batch = TrainingBatches(normalised(dataset_dir), replace(config, seed=0))[0]
        losses.append(
            StepGradient(model.train(), config, Team(0, 1, 0), CPU, torch.float32)(0, batch, print)["loss"].item()
        )
    assert losses[0] != losses[1], "RoI sampling and stochastic depth differ"


def test_out_of_memory_falls_back_to_smaller_passes(
    dataset_dir: Path, quick: DetectorConfig, memory_for: Callable[..., list[int]], tmp_path: Path
) -> None:
    tried = memory_for(1)
    told: list[str] = []
    config = replace(quick, batch_size=4)
    result = train(dataset_dir, tmp_path / "short", config, device="cpu", progress=lambda _, text: told.append(text))
    assert tried == [4, 2, *[1] * 8], "the first step is tried again with less, the second needs no trial"
    assert any("out of memory: continues with 1 tiles at once, 4 times per step" in text for text in told)
    assert inspect(result.checkpoint)["training"]["tiles_at_once"] == 1
    asked = train(
        dataset_dir, tmp_path / "asked", replace(config, batch_size=1, accumulate=4, iterations=2), device="cpu"
    )
    a, b = (open_checkpoint(r.checkpoint).weights() for r in (result, asked))
    assert all(torch.equal(a[name], b[name]) for name in a), "as if accumulation had been asked for"


@pytest.mark.parametrize("exhaust", [exhaust_gpu, exhaust_cpu])
def test_memory_that_does_not_hold_one_tile_is_refused(
    exhaust: Callable[[], None],
    dataset_dir: Path,
    quick: DetectorConfig,
    memory_for: Callable[..., list[int]],
    tmp_path: Path,
) -> None:
    tried = memory_for(0, exhaust)
    with pytest.raises(DeviceError, match=r"does not hold a batch of 1 tiles: use .* a smaller image size"):
        train(dataset_dir, tmp_path / "out", quick, device="cpu")
    assert tried == [2, 1]


def test_other_errors_of_a_step_are_not_taken_for_a_lack_of_memory(
    dataset_dir: Path, quick: DetectorConfig, memory_for: Callable[..., list[int]], tmp_path: Path
) -> None:
    tried = memory_for(0, lambda: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        train(dataset_dir, tmp_path / "out", quick, device="cpu")
    assert tried == [2]


@pytest.mark.parametrize("fusion", ["residual_cross_attention", "stack"])
def test_mixed_precision_learns_what_full_precision_learns(
    fusion: str, dataset_dir: Path, quick: DetectorConfig
) -> None:
    dataset = normalised(dataset_dir)
    losses, gradients = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        model, config = fresh(dataset_dir, replace(quick, fusion=fusion))
        keep_predictions_in_float32(model)
        seen: list[torch.dtype] = []
        model.roi_head.bbox_head[0].fc_cls.register_forward_hook(lambda m, i, out, seen=seen: seen.append(out.dtype))
        step = StepGradient(model.train(), config, Team(0, 1, 0), CPU, dtype)
        losses[dtype] = step(0, TrainingBatches(dataset, config)[0], print)["loss"].item()
        gradients[dtype] = model.neck.lateral_convs[0].conv.weight.grad
        assert seen == [dtype], "the layers compute in it"
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=0.05)
    likeness = torch.cosine_similarity(*(gradient.flatten() for gradient in gradients.values()), dim=0)
    assert likeness > 0.9


def test_mixed_precision_trains(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    result = train(dataset_dir, tmp_path, replace(quick, precision="bfloat16"), device="cpu")
    assert inspect(result.checkpoint)["training"]["precision"] == "bfloat16"
    weights = open_checkpoint(result.checkpoint).weights()
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in weights.values())


def test_regions_are_placed_exactly_in_mixed_precision() -> None:
    """bfloat16 knows no pixel between 256 and 258, so regions must not be rounded to it."""
    rising = torch.arange(320.0).expand(1, 1, 320, 320)  # each pixel holds its own column
    from mmcv.ops import RoIAlign

    align = RoIAlign(output_size=1, spatial_scale=1.0, sampling_ratio=2)
    for left in (257.0, 259.0):
        pixels = (rising - left).bfloat16().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = align(pixels, torch.tensor([[0, left, 0, left + 2, 2]]))
        assert found.dtype == torch.bfloat16
        assert found.item() == pytest.approx(0.5, abs=0.01), "the mean of the columns 0 and 1 after the left edge"
        found.backward(torch.ones_like(found))
        assert pixels.grad is not None
        assert pixels.grad.sum().item() == pytest.approx(1, abs=0.01)
        assert pixels.grad[..., : int(left) - 1].abs().sum() == 0


def test_full_precision_is_chosen_on_a_cpu() -> None:
    assert choose_precision(DetectorConfig(), CPU) == torch.float32


def test_a_frozen_backbone_keeps_nothing_for_a_gradient(dataset_dir: Path, quick: DetectorConfig) -> None:
    model, config = fresh(dataset_dir, replace(quick, freeze=("rgb",), size="tiny"))
    freeze(model, config)
    set_training_mode(model, config)
    branches: Any = model.backbone.branches  # type: ignore[union-attr]
    assert model.training
    assert not branches["rgb"].training, "or its stochastic depth would be noise"
    frozen, free = branches["rgb"](torch.zeros(1, 3, 64, 64)), branches["relative_elevation"](torch.zeros(1, 1, 64, 64))
    assert all(level.grad_fn is None for level in frozen)
    assert all(level.grad_fn is not None for level in free)


def test_slow_parts_learn_at_their_share_of_the_rate(dataset_dir: Path, quick: DetectorConfig) -> None:
    model, config = fresh(dataset_dir, replace(quick, slow=(("rgb", 0.1), ("neck", 0.5)), iterations=10))
    optimizer = make_optimizer(model, config)
    set_learning_rate(optimizer, 3, config)
    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    peak = learning_rate(3, config)
    for name, parameter in model.named_parameters():
        factor = 0.1 if ".rgb." in name and "branches" in name else 0.5 if name.startswith("neck.") else 1.0
        assert rates[parameter] == pytest.approx(factor * peak), name
    assert len(rates) == len(list(model.parameters()))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_fusion_that_begins_anew_learns_faster(fusion: str, dataset_dir: Path, quick: DetectorConfig) -> None:
    model, config = fresh(dataset_dir, replace(quick, fusion=fusion, fusion_rate=3.0, slow=(("neck", 0.5),)))
    for begins_anew in (False, True):
        optimizer = make_optimizer(model, config, fresh_fusion=begins_anew)
        factors = {parameter: group["factor"] for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in model.named_parameters():
            faster = begins_anew and name.startswith("backbone.fusion.")
            assert factors[parameter] == (3.0 if faster else 0.5 if name.startswith("neck.") else 1.0), name
    assert any(name.startswith("backbone.fusion.") for name, _ in model.named_parameters()) == (fusion != "stack")


def test_only_the_fusion_of_unimodal_models_begins_anew(
    dataset_dir: Path, quick: DetectorConfig, trained: TrainResult
) -> None:
    dataset = read_dataset(dataset_dir)
    config = quick.resolve(dataset)
    assert not open_init(None, config, dataset).fusion_is_fresh
    assert not open_init(trained.checkpoint, config, dataset).fusion_is_fresh
    sources = dict.fromkeys(config.modalities, trained.checkpoint)
    assert open_init(sources, config, dataset).fusion_is_fresh


def test_parts_that_do_not_exist_are_refused(dataset_dir: Path, quick: DetectorConfig, tmp_path: Path) -> None:
    everything = ("rgb", "neck", "rpn", "roi_head")
    cases = [
        (replace(quick, slow=(("heads", 0.1),)), "`slow` names 'heads'"),
        (
            replace(quick, slow=(("rgb", 0.1),), fusion="stack"),
            "'rgb' cannot be frozen or slowed with fusion = 'stack'",
        ),
        (replace(quick, freeze=("rgb",), fusion="stack"), "'rgb' cannot be frozen or slowed with fusion = 'stack'"),
        (replace(quick, modalities=("rgb",), freeze=everything), "freezes all parts"),
    ]
    for config, message in cases:
        with pytest.raises(ConfigError, match=message):
            train(dataset_dir, tmp_path / "out", config, device="cpu")


def test_the_average_follows_quickly_at_first_and_slowly_later() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = moving_average(model, 0.5)
    expected = 0.0
    for step in range(12):
        model.weight.data.fill_(step)
        average.update_parameters(model)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = step if step == 0 else kept * expected + (1 - kept) * step
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.weight.item() == pytest.approx(10, abs=0.1), "with a decay of a half it is one step behind"


def test_the_card_says_what_the_training_took(trained: TrainResult) -> None:
    card = inspect(trained.checkpoint)
    assert card["training"]["seconds"] > 0
    assert card["training"]["peak_memory_mb"] > 0
    assert card["training"]["device"].startswith("cpu")
    assert card["training"]["precision"] == "float32"
    assert card["training"]["processes"] == 1
    assert card["dataset"]["checksum"]
    assert card["code_version"]
