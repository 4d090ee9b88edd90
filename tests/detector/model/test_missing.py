"""The whole detector: a missing modality is one that is invalid everywhere, and nothing under nodata matters."""

import numpy as np
import pytest
import torch

from contracts.network import FUSIONS
from ml_backend.detector import ChipInput, Detector, DetectorConfig, ModalitySpec, TileResult
from ml_backend.detector.model import build_model
from ml_backend.detector.model.backbone import MultimodalBackbone
from tests.detector.rounding import assert_same_but_for_rounding

SIZE = 64
BANDS = {"rgb": 3, "ndvi": 1, "dem": 2}
MODALITIES = tuple(
    ModalitySpec(name, tuple(f"{name}{i}" for i in range(bands)), (0.0, 1.0), None, (0.5,) * bands, (0.2,) * bands)
    for name, bands in BANDS.items()
)


@pytest.fixture(scope="module", params=FUSIONS)
def detector(request: pytest.FixtureRequest) -> Detector:
    """Random weights everywhere, also where a new model is neutral."""
    return make(request.param)


def make(fusion: str) -> Detector:
    config = DetectorConfig(fusion=fusion, modalities=tuple(BANDS), anchor="rgb")
    torch.manual_seed(0)
    model = build_model(config, MODALITIES, 1).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("backbone.fusion"):
            torch.nn.init.normal_(parameter, std=0.1)
        if name.endswith("conv_logits.bias"):
            torch.nn.init.constant_(parameter, 0.2)  # so that masks are not empty
    return Detector(model, config, ("RTS",), MODALITIES, torch.device("cpu"))


def chip(seed: int = 0) -> ChipInput:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.random((bands, SIZE, SIZE), dtype=np.float32) for name, bands in BANDS.items()}
    return ChipInput(arrays, {name: np.ones((SIZE, SIZE), dtype=bool) for name in BANDS})


def without(name: str) -> ChipInput:
    whole = chip()
    return ChipInput({n: a for n, a in whole.arrays.items() if n != name}, whole.valid)


def marked_invalid(name: str, garbage: float) -> ChipInput:
    whole = chip()
    spoiled = np.full_like(whole.arrays[name], garbage)
    return ChipInput({**whole.arrays, name: spoiled}, {**whole.valid, name: np.zeros((SIZE, SIZE), dtype=bool)})


def predict(detector: Detector, *chips: ChipInput) -> list[TileResult]:
    return detector.predict(chips, max_detections=10)


def assert_same(a: TileResult, b: TileResult) -> None:
    assert len(a.detections) == len(b.detections) > 0
    assert np.array_equal(a.embedding, b.embedding)
    assert np.isfinite(a.embedding).all()
    assert [d.to_json() for d in a.detections] == [d.to_json() for d in b.detections]


def test_a_modality_that_is_absent_and_one_marked_invalid_predict_the_same(detector: Detector) -> None:
    """Bit for bit, whatever lies in the chip, alone or beside a tile that has it; also for the anchor (rgb)."""
    assert_same(*predict(detector, without("dem")), *predict(detector, marked_invalid("dem", np.nan)))
    absent = predict(detector, without("dem"), without("rgb"), chip(1))
    marked = predict(detector, marked_invalid("dem", 1e6), marked_invalid("rgb", np.inf), chip(1))
    for a, b in zip(absent, marked, strict=True):
        assert_same(a, b)


def test_what_lies_under_partial_nodata_has_no_influence(detector: Detector) -> None:
    whole, results = chip(), []
    hole = np.ones((SIZE, SIZE), dtype=bool)
    hole[10:30, 20:45] = False
    for garbage in (0.0, np.nan):
        arrays = {name: np.where(hole, array, np.float32(garbage)) for name, array in whole.arrays.items()}
        results += predict(detector, ChipInput(arrays, dict.fromkeys(BANDS, hole)))
    assert_same(results[1], results[0])


def test_the_network_itself_ignores_what_lies_under_nodata(detector: Detector) -> None:
    """Even if whoever fills its input forgets to."""
    backbone = detector.model.backbone
    inputs = torch.rand(2, sum(BANDS.values()) + len(BANDS), SIZE, SIZE)
    inputs[:, -3:] = 1
    inputs[0, -1], inputs[1, -2, :20] = 0, 0
    spoiled = inputs.clone()
    spoiled[0, 4:6], spoiled[1, 3, :20] = torch.nan, 1e9
    with torch.no_grad():
        for a, b in zip(backbone(spoiled), backbone(inputs), strict=True):
            assert torch.isfinite(a).all()
            assert torch.equal(a, b)


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "stack"])
def test_the_backbone_of_a_modality_that_no_tile_has_is_not_run(fusion: str) -> None:
    backbone = make(fusion).model.backbone
    assert isinstance(backbone, MultimodalBackbone)
    ran: list[str] = []
    for name, branch in backbone.branches.items():
        branch.register_forward_hook(lambda *_, name=name: ran.append(name))
    inputs = torch.rand(2, sum(BANDS.values()) + len(BANDS), SIZE, SIZE)
    inputs[:, -3:] = 0
    inputs[1, -1] = 1
    with torch.no_grad():
        saved = backbone(inputs)
    assert ran == ["rgb", "dem"], "the anchor's always runs"
    whole = backbone(inputs)
    assert ran[2:] == ["rgb", "ndvi", "dem"], "in training every branch gets its gradient"
    assert_same_but_for_rounding(saved, whole, backbone)


@pytest.mark.parametrize("fusion", sorted(set(FUSIONS) - {"cross_attention", "stack"}))
def test_a_joint_model_of_unimodal_ones_starts_as_the_anchors(fusion: str) -> None:
    """Neck and heads are the anchor's too, so equal features are an equal detector."""
    config = DetectorConfig(fusion=fusion, modalities=tuple(BANDS), anchor="rgb")
    joint = build_model(config, MODALITIES, 1).eval().backbone
    alone = build_model(DetectorConfig(modalities=("rgb",), anchor="rgb"), MODALITIES[:1], 1).eval().backbone
    alone.branches.load_state_dict({k: v for k, v in joint.branches.state_dict().items() if k.startswith("rgb.")})
    inputs = torch.rand(1, sum(BANDS.values()) + len(BANDS), SIZE, SIZE)
    inputs[:, -3:] = (torch.rand(1, 3, SIZE, SIZE) > 0.3).float()
    with torch.no_grad():
        for a, b in zip(joint(inputs), alone(inputs[:, [0, 1, 2, -3]]), strict=True):
            assert torch.equal(a, b)
