"""Detectron2's weights: every tensor lands where it computes the same, and nothing of their files is executed."""

import os
import pickle
import re
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ml_backend.detector import CheckpointError, ChipInput, Detector, DetectorConfig
from ml_backend.detector.model import build_model
from ml_backend.detector.model.detectron2 import without_norms
from ml_backend.detector.model.pickled import read_arrays
from tests.detector.model.test_pretrained import RGB, load

CONFIG = DetectorConfig(modalities=("rgb",), anchor="rgb")
# from our names to those that detectron2/modeling gives a CascadeROIHeads detector on FPN(MViT), with its FCN mask head
RENAMED = (
    (r"backbone\.branches\.rgb\.patch_embed\.projection\.", "backbone.bottom_up.patch_embed.proj."),
    (r"backbone\.branches\.rgb\.norm(\d)\.", lambda m: f"backbone.bottom_up.scale{int(m[1]) + 2}_norm."),
    (r"backbone\.branches\.rgb\.", "backbone.bottom_up."),
    (r"neck\.lateral_convs\.(\d)\.conv\.", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}."),
    (r"neck\.fpn_convs\.(\d)\.conv\.", lambda m: f"backbone.fpn_output{int(m[1]) + 2}."),
    (r"rpn_head\.rpn_conv\.", "proposal_generator.rpn_head.conv."),
    (r"rpn_head\.rpn_cls\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"rpn_head\.rpn_reg\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"roi_head\.bbox_head\.(\d)\.shared_fcs\.(\d)\.", lambda m: f"roi_heads.box_head.{m[1]}.fc{int(m[2]) + 1}."),
    (r"roi_head\.bbox_head\.(\d)\.fc_cls\.", r"roi_heads.box_predictor.\1.cls_score."),
    (r"roi_head\.bbox_head\.(\d)\.fc_reg\.", r"roi_heads.box_predictor.\1.bbox_pred."),
    (r"roi_head\.mask_head\.0\.convs\.(\d)\.conv\.", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}."),
    (r"roi_head\.mask_head\.0\.upsample\.", "roi_heads.mask_head.deconv."),
    (r"roi_head\.mask_head\.0\.conv_logits\.", "roi_heads.mask_head.predictor."),
)
OTHERS = {"pixel_mean": torch.zeros(3, 1, 1), "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4)}


@pytest.fixture(scope="module")
def own() -> nn.Module:
    """A detector of ours whose stages share one mask head, as detectron2's do, and which finds something."""
    torch.manual_seed(5)
    model = build_model(CONFIG, (RGB,), 1).eval()
    heads: Any = model.get_submodule("roi_head.mask_head")
    for head in heads[1:]:
        head.load_state_dict(heads[0].state_dict())
    for number, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(number % 190))
    for head in heads[1:]:
        head.load_state_dict(heads[0].state_dict())
    return model


def as_detectron2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = dict(OTHERS)
    for name, tensor in state.items():
        if re.match(r"roi_head\.mask_head\.[12]\.", name):
            continue
        pattern, theirs = next((p, t) for p, t in RENAMED if re.match(p, name))
        named[re.sub(pattern, theirs, name, count=1)] = tensor
    return named


def save(file: Path, tensors: dict[str, Tensor], protocol: int = 4) -> Path:
    """As detectron2's checkpointer writes ``.pth``, and its model zoo ``.pkl``."""
    if file.suffix == ".pth":
        torch.save({"model": tensors, "iteration": 9, "optimizer": {"state": {}, "param_groups": []}}, file)
    else:
        arrays = OrderedDict((name, tensor.numpy()) for name, tensor in tensors.items())
        file.write_bytes(
            pickle.dumps({"model": arrays, "__author__": "somebody", "matching_heuristics": True}, protocol)
        )
    return file


@pytest.mark.parametrize("file", ["model_final.pth", "model_final.pkl"])
def test_a_detectron2_detector_finds_what_ours_of_the_same_numbers_finds(
    file: str, own: nn.Module, tmp_path: Path
) -> None:
    model, report = load(save(tmp_path / file, as_detectron2(dict(own.state_dict()))), (RGB,))
    ours, theirs = own.state_dict(), model.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    told = report["pretrained"]
    assert (told["layout"], told["tensors"], told["fresh"]) == ("detectron2", len(ours), {})
    assert told["unused"] == sorted(OTHERS)
    chip = ChipInput({"rgb": np.random.default_rng(0).random((3, 64, 64), dtype=np.float32)}, {})
    one, other = (
        Detector(m.eval(), CONFIG, ("RTS",), (RGB,), torch.device("cpu")).segment(chip, [(8, 8, 40, 50)])[0]
        for m in (own, model)
    )
    assert one.to_json() == other.to_json()


def test_a_detector_of_other_classes_brings_all_but_its_last_layers(own: nn.Module, tmp_path: Path) -> None:
    model, report = load(save(tmp_path / "w.pth", as_detectron2(dict(own.state_dict()))), (RGB,), classes=3)
    fresh = [n for n, t in model.state_dict().items() if t.shape != own.state_dict()[n].shape]
    assert {name.split(".")[-2] for name in fresh} == {"fc_cls", "conv_logits"}
    assert report["pretrained"]["fresh"] == {"roi_head": len(fresh)}
    assert "roi_heads.mask_head.predictor.weight" in report["pretrained"]["unused"]


def test_heads_of_another_kind_are_left_out_as_a_whole(own: nn.Module, tmp_path: Path) -> None:
    """As the MViTv2 project's cascade has them: two convolutions in the RPN, four and one layer in the box heads."""
    tensors = as_detectron2(dict(own.state_dict()))
    for kind in ("weight", "bias"):
        conv = tensors.pop(f"proposal_generator.rpn_head.conv.{kind}")
        for number in (0, 1):
            tensors[f"proposal_generator.rpn_head.conv.conv{number}.{kind}"] = conv
        for stage in range(3):
            del tensors[f"roi_heads.box_head.{stage}.fc2.{kind}"]
    model, report = load(save(tmp_path / "w.pth", tensors), (RGB,))
    left = {
        n.split(".")[0] + "." + n.split(".")[1]
        for n, t in model.state_dict().items()
        if not torch.equal(t, own.state_dict()[n])
    }
    assert {name.split(".")[0] for name in left} == {"rpn_head", "roi_head"}
    assert not any("mask_head" in name for name in left), "it is whole"
    assert {"proposal_generator.rpn_head.objectness_logits.weight", "roi_heads.box_head.0.fc1.weight"} < set(
        report["pretrained"]["unused"]
    )


def test_a_batch_norm_becomes_part_of_the_convolution_before_it() -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5).eval()
    for values in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(values)  # type: ignore[arg-type]
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    named = {"x.weight": convolution.weight.detach(), **{f"x.norm.{k}": v for k, v in norm.state_dict().items()}}
    joined = without_norms(named)
    assert sorted(joined) == ["x.bias", "x.weight"]
    image = torch.rand(2, 3, 8, 8)
    expected = norm(convolution(image))
    torch.testing.assert_close(nn.functional.conv2d(image, joined["x.weight"], joined["x.bias"]), expected)
    layer_norm = {"x.weight": named["x.weight"], "x.norm.weight": norm.weight, "x.norm.bias": norm.bias}
    assert without_norms(layer_norm) == {}, "has no such form"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_are_read_from_pickles_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    arrays = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        "big endian": np.arange(3, dtype=">f8"),
        "counter": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 3), dtype=np.uint8),
    }
    file = tmp_path / "w.pkl"
    file.write_bytes(pickle.dumps({"model": OrderedDict(arrays), "lr": np.float64(0.5), "n": [1, (2, None)]}, protocol))
    read = read_arrays(file)
    assert read["lr"] == 0.5
    assert read["n"] == [1, (2, None)]
    for name, array in arrays.items():
        assert np.array_equal(read["model"][name], array)


class Runs:
    def __reduce__(self) -> Any:
        return (os.system, ("touch executed",))


def claims(shape: tuple[int, ...], dtype: str = "f4") -> bytes:
    """A pickle whose array claims more values than there are."""
    array = pickle.dumps({"model": {"a": np.zeros(3, dtype=np.float32)}}, 2)
    assert array.count(b"K\x03\x85") == 1
    size = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in shape) + b"t"
    return array.replace(b"K\x03\x85", size).replace(b"X\x02\x00\x00\x00f4", b"X\x02\x00\x00\x00" + dtype.encode())


HOSTILE = {
    "code": pickle.dumps({"model": {"a": Runs()}}),
    "object array": pickle.dumps({"model": {"a": np.array([Runs()], dtype=object)}}),
    "instance": pickle.dumps({"model": {"a": Path("x")}}),
    "state of a function": b"\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.",
    "huge": claims((2**30, 2**30)),
    "negative": claims((-1, -3)),
    "objects": claims((3,), "O8"),
    "memo": b"\x80\x02N\x94r\xff\xff\xff\x7f.",
    "tuple as key": b"\x80\x02})K\x01s.",
    "set": pickle.dumps({"model": {1, 2}}),
    "text larger than memory": b"\x80\x04\x8d" + struct.pack("<Q", 2**50) + b"abc.",
    "truncated": pickle.dumps({"model": {"a": np.zeros(99)}})[:-40],
    "text": b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_of_anything_else_is_refused_and_not_executed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pkl").write_bytes(HOSTILE[kind])
    with pytest.raises(CheckpointError, match=r"w\.pkl (is not a readable file of weights|holds no tensors)") as caught:
        load(tmp_path / "w.pkl", (RGB,))
    assert "\n" not in str(caught.value)
    assert os.listdir() == ["w.pkl"]


def test_bytes_that_a_pickle_asks_for_again_and_again_are_made_once(tmp_path: Path) -> None:
    text = b"x" * 100_000
    again = b"h\x02h\x01X\x06\x00\x00\x00latin1\x86R" * 1000  # (function, text, encoding) -> bytes
    known = b"\x80\x02c_codecs\nencode\nq\x02X" + struct.pack("<I", len(text)) + text + b"q\x01"
    (tmp_path / "w.pkl").write_bytes(known + b"](" + again + b"e.")
    tracemalloc.start()
    assert read_arrays(tmp_path / "w.pkl") == [text] * 1000
    assert tracemalloc.get_traced_memory()[1] < 20 * len(text)
    tracemalloc.stop()


@pytest.mark.parametrize("content", [{"model": {"a": Path("x")}}, {"model": torch.zeros(2), "hook": Runs()}])
def test_torchs_advice_to_execute_a_file_does_not_reach_anybody(
    content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"holds Python objects beside its tensors") as caught:
        load(tmp_path / "w.pth", (RGB,))
    assert not re.search("weights_only|trust|arbitrary", str(caught.value))
    assert os.listdir() == ["w.pth"]
