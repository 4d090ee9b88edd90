"""The op interface on torchvision's kernels against plain reference implementations."""

import math

import numpy as np
import pytest
import torch

from ml_backend.detector.model import openmmlab, ops


def reference_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    """Greedy suppression, box by box."""
    kept: list[int] = []
    for candidate in np.argsort(-scores, kind="stable"):
        x1, y1, x2, y2 = boxes[candidate]
        for other in kept:
            a1, b1, a2, b2 = boxes[other]
            overlap = max(0, min(x2, a2) - max(x1, a1) + offset) * max(0, min(y2, b2) - max(y1, b1) + offset)
            area = (x2 - x1 + offset) * (y2 - y1 + offset) + (a2 - a1 + offset) * (b2 - b1 + offset)
            if overlap / (area - overlap) > threshold:
                break
        else:
            kept.append(int(candidate))
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_nms_keeps_what_the_reference_keeps(offset: int, threshold: float) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (60, 2))
    boxes = np.hstack([corner, corner + rng.uniform(4, 30, (60, 2))]).astype(np.float32)
    scores = rng.permutation(60).astype(np.float32)
    kept = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset)
    assert kept.tolist() == reference_nms(boxes, scores, threshold, offset)
    assert 1 < len(kept) < 60


def test_nms_of_nothing_keeps_nothing() -> None:
    kept = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_nms_in_half_precision_keeps_what_full_precision_does() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.75, 0.25])
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        assert ops.nms(boxes.to(kind), scores.to(kind), 0.5).tolist() == [1, 2]


@pytest.mark.parametrize("split", [10000, 10], ids=["classes moved apart", "class by class"])
@pytest.mark.parametrize("offset", [0, 1])
def test_nms_per_class_lets_boxes_of_other_classes_alone(offset: int, split: int) -> None:
    """mmcv's batched_nms on our kernel, which mmdet's heads call."""
    from mmcv.ops import batched_nms

    rng = np.random.default_rng(1)
    corner = rng.uniform(-5, 30, (50, 2))
    boxes = np.hstack([corner, corner + rng.uniform(4, 30, (50, 2))]).astype(np.float32)
    scores, classes = rng.permutation(50).astype(np.float32), rng.integers(3, size=50)
    config = {"type": "nms", "iou_threshold": 0.4, "offset": offset, "split_thr": split}
    found, kept = batched_nms(*map(torch.from_numpy, (boxes, scores, classes)), config)
    members = [np.flatnonzero(classes == name) for name in range(3)]
    expected = np.concatenate([own[reference_nms(boxes[own], scores[own], 0.4, offset)] for own in members])
    assert kept.tolist() == sorted(expected, key=lambda index: -scores[index])
    assert np.array_equal(found.numpy(), np.hstack([boxes, scores[:, None]])[kept])
    assert len(kept) > len(reference_nms(boxes, scores, 0.4, offset))
    config["class_agnostic"] = True
    if split == 10000:
        _, kept = batched_nms(*map(torch.from_numpy, (boxes, scores, classes)), config)
        assert kept.tolist() == reference_nms(boxes, scores, 0.4, offset)


def reference_roi_align(
    image: torch.Tensor, rois: torch.Tensor, cells: int, scale: float, sampling_ratio: int, aligned: bool
) -> torch.Tensor:
    """RoIAlign by its definition: the mean of bilinear samples in each cell; differentiable, slow.

    ``sampling_ratio`` 0 takes as many samples as a cell has pixels, rounded up, along each side.
    """
    height, width = image.shape[-2:]

    def bilinear(plane: torch.Tensor, y: float, x: float) -> torch.Tensor:
        if y < -1 or y > height or x < -1 or x > width:
            return plane.new_zeros(plane.shape[0])
        y, x = max(y, 0.0), max(x, 0.0)
        top, left = int(y), int(x)
        if top >= height - 1:
            top, y = height - 1, float(height - 1)
        if left >= width - 1:
            left, x = width - 1, float(width - 1)
        below, right = min(top + 1, height - 1), min(left + 1, width - 1)
        dy, dx = y - top, x - left
        upper = plane[:, top, left] * (1 - dx) + plane[:, top, right] * dx
        lower = plane[:, below, left] * (1 - dx) + plane[:, below, right] * dx
        return upper * (1 - dy) + lower * dy

    out = []
    for index, *box in rois.tolist():
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0.0) for value in box)
        w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
        down, across = (sampling_ratio or math.ceil(side / cells) for side in (h, w))
        rows = []
        for i in range(cells):
            row = []
            for j in range(cells):
                points = [
                    bilinear(
                        image[int(index)],
                        y1 + (i + (a + 0.5) / down) * h / cells,
                        x1 + (j + (b + 0.5) / across) * w / cells,
                    )
                    for a in range(down)
                    for b in range(across)
                ]
                row.append(torch.stack(points).mean(dim=0))
            rows.append(torch.stack(row, dim=1))
        out.append(torch.stack(rows, dim=1))
    return torch.stack(out)


ROIS = [[0, 3.0, 5.0, 30.0, 33.0], [1, -6.0, -4.0, 20.0, 18.0], [1, 30.0, 20.0, 60.0, 55.0], [0, 8.0, 8.0, 9.0, 8.5]]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
def test_roi_align_and_its_gradient_match_the_reference(sampling_ratio: int, aligned: bool) -> None:
    from mmcv.ops import RoIAlign

    assert openmmlab.MODELS  # the interface is installed by importing it
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 10, 12, generator=generator, dtype=torch.float64)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    ours, theirs = image.clone().requires_grad_(), image.clone().requires_grad_()
    actual = RoIAlign(3, spatial_scale=0.25, sampling_ratio=sampling_ratio, aligned=aligned)(ours, rois)
    expected = reference_roi_align(theirs, rois, 3, 0.25, sampling_ratio, aligned)
    torch.testing.assert_close(actual, expected)
    weight = torch.randn(actual.shape, generator=generator, dtype=torch.float64)
    (actual * weight).sum().backward()
    (expected * weight).sum().backward()
    assert theirs.grad is not None
    assert theirs.grad.abs().sum() > 0
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_roi_align_of_no_boxes_has_no_rows_and_a_zero_gradient() -> None:
    from mmcv.ops import RoIAlign

    image = torch.randn(2, 3, 10, 12, requires_grad=True)
    found = RoIAlign(3, spatial_scale=0.25, sampling_ratio=2)(image, torch.zeros(0, 5))
    assert found.shape == (0, 3, 3, 3)
    found.sum().backward()
    assert image.grad is not None
    assert not image.grad.any()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_roi_align_in_half_precision_keeps_boxes_exact(kind: torch.dtype) -> None:
    """Features are rounded, where they are looked up is not."""
    from mmcv.ops import RoIAlign

    image = torch.randn(2, 3, 10, 12, generator=torch.Generator().manual_seed(0)).to(kind)
    half, full = image.clone().requires_grad_(), image.float().requires_grad_()
    rois = torch.tensor(ROIS) + torch.tensor([0, 0.37, 0.37, 0.37, 0.37])
    align = RoIAlign(3, spatial_scale=0.25, sampling_ratio=2)
    actual, expected = align(half, rois), align(full, rois)
    assert actual.dtype == kind
    assert torch.equal(actual, expected.to(kind))
    actual.sum().backward()
    expected.sum().backward()
    assert half.grad is not None
    assert full.grad is not None
    torch.testing.assert_close(half.grad.float(), full.grad, atol=0.02, rtol=0.02)


def test_boxes_stay_exact_under_mixed_precision() -> None:
    """mmdet's own extractor rounds them to the features' type: to every second pixel at 300 px."""
    config = {
        "type": "Float32RoIExtractor",
        "roi_layer": {"type": "RoIAlign", "output_size": 3, "sampling_ratio": 2},
        "out_channels": 2,
        "featmap_strides": [4],
    }
    extract = openmmlab.MODELS.build({**config, "_scope_": "mmdet"})
    ramp = torch.arange(96.0).expand(1, 2, 96, 96).contiguous()
    rois = torch.tensor([[0, 301.0, 301.0, 311.0, 311.0]])
    exact = extract((ramp,), rois)
    assert torch.equal(extract((ramp.bfloat16(),), rois), exact)
    config["type"] = "SingleRoIExtractor"
    stock = openmmlab.MODELS.build({**config, "_scope_": "mmdet"})
    assert (stock((ramp.bfloat16(),), rois).float() - exact).abs().max() > 0.1


def test_ops_that_are_not_mapped_refuse_by_name() -> None:
    from mmcv.ops import RoIAlign, deform_conv2d

    with pytest.raises(NotImplementedError, match="deform_conv_forward"):
        deform_conv2d(torch.randn(1, 1, 4, 4), torch.zeros(1, 18, 4, 4), torch.randn(1, 1, 3, 3), 1, 1)
    with pytest.raises(NotImplementedError, match="max pooling"):
        RoIAlign(2, pool_mode="max")(torch.randn(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 3, 3]]))
