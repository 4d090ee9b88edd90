"""Published weights: every layout lands where it belongs, fitted to other bands and sizes, or is refused."""

import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ml_backend.detector import CheckpointError, DetectorConfig, ModalitySpec, inspect, train
from ml_backend.detector.model import build_model, model_config
from ml_backend.detector.model.build import SIZES
from ml_backend.detector.model.openmmlab import MODELS, ConfigDict, MViT
from ml_backend.detector.model.pretrained import fit_bands, load_pretrained, mmdet_names

RGB = ModalitySpec("rgb", ("red", "green", "blue"), None, None, (0.5,) * 3, (0.2,) * 3)
DEM = ModalitySpec("dem", ("dem",), None, None, (0.5,), (0.2,))
FIRST = "patch_embed.projection.weight"


@pytest.fixture(scope="module")
def classifier() -> dict[str, Tensor]:
    """A nano MViT as a classification model has it: it puts out its last scale alone."""
    torch.manual_seed(7)
    backbone = MViT(arch=SIZES["nano"].arch, img_size=SIZES["nano"].pretrain_size)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return dict(backbone.state_dict())


def save(file: Path, tensors: Mapping[str, Tensor]) -> Path:
    if file.suffix == ".safetensors":
        save_file(dict(tensors), file)
    else:
        torch.save({"meta": {"epoch": 3}, "state_dict": dict(tensors)}, file)
    return file


def load(
    file: Path | str, modalities: tuple[ModalitySpec, ...] = (RGB, DEM), classes: int = 1, **settings: Any
) -> tuple[nn.Module, dict[str, Any]]:
    names = tuple(m.name for m in modalities)
    config = DetectorConfig(modalities=names, anchor=names[0], pretrained=str(file), **settings)
    torch.manual_seed(0)
    model = build_model(config, modalities, classes)
    return model, load_pretrained(model, config)


def as_timm(name: str) -> str:
    """Nano's blocks in the stages that its downscaling layers (1, 2, 5) make."""
    for block, place in enumerate(("0.blocks.0", "1.blocks.0", "2.blocks.0", "2.blocks.1", "2.blocks.2", "3.blocks.0")):
        if name.startswith(f"blocks.{block}."):
            rest = name.removeprefix(f"blocks.{block}.")
            return f"stages.{place}.{rest.replace('proj.', 'shortcut_proj_attn.', 1) if rest[0] == 'p' else rest}"
    return name.replace("patch_embed.projection", "patch_embed.proj").replace("norm3.", "norm.")


@pytest.mark.parametrize("layout", ["mmpretrain.pth", "bare.safetensors", "timm.safetensors"])
def test_a_classifiers_backbone_becomes_that_of_every_modality(
    layout: str, classifier: dict[str, Tensor], tmp_path: Path
) -> None:
    head = {"head.fc.weight": torch.zeros(10, 256), "head.fc.bias": torch.zeros(10)}
    rename = {"mmpretrain.pth": "backbone.{}".format, "bare.safetensors": str, "timm.safetensors": as_timm}[layout]
    file = save(tmp_path / layout, {rename(name): tensor for name, tensor in classifier.items()} | head)
    model, report = load(file)
    for branch in ("rgb", "dem"):
        state = model.get_submodule(f"backbone.branches.{branch}").state_dict()
        for name in classifier.keys() - {FIRST}:
            assert torch.equal(state[name], classifier[name]), name
    assert torch.equal(model.get_parameter(f"backbone.branches.rgb.{FIRST}"), classifier[FIRST])
    mean = classifier[FIRST].mean(dim=1, keepdim=True)
    torch.testing.assert_close(model.get_parameter(f"backbone.branches.dem.{FIRST}").data, 3 * mean)
    told = report["pretrained"]
    assert told["source"] == layout
    assert told["tensors"] == 2 * len(classifier)
    assert told["fresh"]["rgb"] == told["fresh"]["dem"] == 6, "output norms of three scales"
    assert {"fusion", "neck", "roi_head", "rpn_head"} < told["fresh"].keys()
    assert told["unused"] == ["head.fc.bias", "head.fc.weight"]


def test_the_stacked_backbone_takes_all_bands(classifier: dict[str, Tensor], tmp_path: Path) -> None:
    model, _ = load(save(tmp_path / "w.safetensors", classifier), fusion="stack")
    kernel = model.get_parameter(f"backbone.branches.stacked.{FIRST}").data
    assert kernel.shape[1] == 4
    torch.testing.assert_close(kernel, fit_bands(classifier[FIRST], 4))


@pytest.mark.parametrize("bands", [1, 2, 3, 7])
def test_a_first_convolution_answers_alike_to_what_its_bands_have_in_common(bands: int) -> None:
    kernel, grey = torch.randn(8, 3, 7, 7), torch.randn(1, 1, 7, 7)
    expected = torch.nn.functional.conv2d(grey.expand(1, 3, 7, 7), kernel)
    actual = torch.nn.functional.conv2d(grey.expand(1, bands, 7, 7), fit_bands(kernel, bands))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_a_detectors_neck_and_heads_are_taken_where_they_fit(tmp_path: Path) -> None:
    torch.manual_seed(7)
    stock = build_model(DetectorConfig(modalities=("rgb",), anchor="rgb"), (RGB,), 80).state_dict()
    file = save(tmp_path / "w.pth", {name.replace("branches.rgb.", ""): tensor for name, tensor in stock.items()})
    model, report = load(file, classes=1)
    state = model.state_dict()
    fits = [name for name in stock if stock[name].shape == state[name].shape]
    assert all(torch.equal(state[name], stock[name]) for name in fits)
    assert {name.split(".")[0] for name in fits} == {"backbone", "neck", "rpn_head", "roi_head"}
    classifies = [f"roi_head.bbox_head.{stage}.fc_cls" for stage in range(3)]
    masks = [f"roi_head.mask_head.{stage}.conv_logits" for stage in range(3)]
    expected = sorted(f"{layer}.{kind}" for layer in (*classifies, *masks) for kind in ("bias", "weight"))
    assert report["pretrained"]["unused"] == expected


def test_relative_positions_of_another_image_size_are_interpolated(
    classifier: dict[str, Tensor], tmp_path: Path
) -> None:
    smaller = {
        name: torch.linspace(0, 1, 15)[:, None].repeat(1, tensor.shape[1]) if "rel_pos" in name else tensor
        for name, tensor in classifier.items()
    }
    model, _ = load(save(tmp_path / "w.safetensors", smaller))
    table = model.get_parameter("backbone.branches.rgb.blocks.0.attn.rel_pos_h").data
    assert len(table) == len(classifier["blocks.0.attn.rel_pos_h"]) != 15
    assert (table.diff(dim=0) >= 0).all()
    torch.testing.assert_close(table.mean(), torch.tensor(0.5))


def test_every_tensor_of_timms_model_has_its_place() -> None:
    """Names and shapes as timm 1.0.31 creates ``mvitv2_tiny``; that features agree was checked against it by hand."""
    shapes = json.loads(Path(__file__).with_name("timm_mvitv2_tiny.json").read_text())
    named = mmdet_names({name: torch.zeros(1).expand(shape) for name, shape in shapes.items()})
    config = DetectorConfig(size="tiny", modalities=("rgb",), anchor="rgb")
    with torch.device("meta"):
        model: nn.Module = MODELS.build(ConfigDict(model_config(config, (RGB,), 1)))
    state = model.get_submodule("backbone.branches.rgb").state_dict()
    fresh = ("norm0.", "norm1.", "norm2.")
    wanted = {f"backbone.{name}": value.shape for name, value in state.items() if not name.startswith(fresh)}
    head = {"head.fc.weight": (1000, 768), "head.fc.bias": (1000,)}
    assert {name: tensor.shape for name, tensor in named.items()} == wanted | head


def test_files_that_do_not_fit_are_refused_in_a_sentence(classifier: dict[str, Tensor], tmp_path: Path) -> None:
    good = save(tmp_path / "good.safetensors", classifier)
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(good.read_bytes()[:-100])
    torch.save({"state_dict": [print]}, tmp_path / "code.pth")
    torch.save({"a": 1}, tmp_path / "nothing.pth")
    (tmp_path / "text.bin").write_text("hello")
    other = save(tmp_path / "other.safetensors", {"conv1.weight": torch.zeros(3)})
    half = save(tmp_path / "half.pth", {n: t for n, t in classifier.items() if not n.startswith("blocks.5")})
    cases = [
        (tmp_path / "nowhere.pth", "is missing: give"),
        (truncated, "not a readable file"),
        (tmp_path / "code.pth", "not a readable file of weights .*nothing but tensors"),
        (tmp_path / "text.bin", "not a readable file"),
        (tmp_path / "nothing.pth", "holds no tensors by name"),
        (other, "does not fit a backbone of size 'nano'"),
        (half, "does not fit a backbone of size 'nano'.*blocks.5"),
        ("hf://owner/file.pth", "names no file: write hf://owner/repository/file"),
    ]
    for file, message in cases:
        with pytest.raises(CheckpointError, match=message) as caught:
            load(file, (RGB,))
        assert "\n" not in str(caught.value)


def test_weights_come_from_the_hub_or_say_why_not(
    classifier: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    address = "hf://owner/repository/weights/mvit.safetensors"
    with pytest.raises(CheckpointError, match=r"cannot be fetched .*download the file elsewhere"):
        load(address, (RGB,))
    commit = "0" * 40
    folder = tmp_path / "models--owner--repository"
    (folder / "snapshots" / commit / "weights").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(commit)
    save(folder / "snapshots" / commit / "weights/mvit.safetensors", classifier)
    _, report = load(address, (RGB,))
    assert report["pretrained"]["source"] == address
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="needs the package huggingface_hub"):
        load(address, (RGB,))


def test_training_starts_from_them_and_the_card_says_so(
    classifier: dict[str, Tensor], dataset_dir: Path, quick: DetectorConfig, tmp_path: Path
) -> None:
    file = save(tmp_path / "w.safetensors", classifier)
    config = replace(quick, iterations=1, learning_rate=1e-30, pretrained=str(file))
    checkpoint = train(dataset_dir, tmp_path / "out", config, device="cpu").checkpoint
    card = inspect(checkpoint)
    assert card["init"]["pretrained"]["tensors"] == 2 * len(classifier)
    assert len(card["init"]["pretrained"]["sha256"]) == 64
    again = train(dataset_dir, tmp_path / "again", replace(config, pretrained=str(file)), init=checkpoint, device="cpu")
    assert set(inspect(again.checkpoint)["init"]) == {"all"}, "an earlier model replaces every weight"
