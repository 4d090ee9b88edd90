"""The op interface on torchvision's kernels against plain reference implementations."""

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


def reference_roi_align(
    image: torch.Tensor, rois: torch.Tensor, cells: int, scale: float, samples: int, aligned: bool
) -> torch.Tensor:
    """RoIAlign by its definition: the mean of bilinear samples in each cell; differentiable, slow."""
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
        rows = []
        for i in range(cells):
            row = []
            for j in range(cells):
                points = [
                    bilinear(
                        image[int(index)],
                        y1 + (i + (a + 0.5) / samples) * h / cells,
                        x1 + (j + (b + 0.5) / samples) * w / cells,
                    )
                    for a in range(samples)
                    for b in range(samples)
                ]
                row.append(torch.stack(points).mean(dim=0))
            rows.append(torch.stack(row, dim=1))
        out.append(torch.stack(rows, dim=1))
    return torch.stack(out)


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_and_its_gradient_match_the_reference(aligned: bool) -> None:
    from mmcv.ops import RoIAlign

    assert openmmlab.MODELS  # the interface is installed by importing it
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 10, 12, generator=generator, dtype=torch.float64)
    rois = torch.tensor(
        [[0, 3.0, 5.0, 30.0, 33.0], [1, -6.0, -4.0, 20.0, 18.0], [1, 30.0, 20.0, 60.0, 55.0]], dtype=torch.float64
    )
    ours, theirs = image.clone().requires_grad_(), image.clone().requires_grad_()
    actual = RoIAlign(3, spatial_scale=0.25, sampling_ratio=2, aligned=aligned)(ours, rois)
    expected = reference_roi_align(theirs, rois, 3, 0.25, 2, aligned)
    torch.testing.assert_close(actual, expected)
    weight = torch.randn(actual.shape, generator=generator, dtype=torch.float64)
    (actual * weight).sum().backward()
    (expected * weight).sum().backward()
    assert theirs.grad is not None
    assert theirs.grad.abs().sum() > 0
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_ops_that_are_not_mapped_refuse_by_name() -> None:
    from mmcv.ops import RoIAlign, deform_conv2d

    with pytest.raises(NotImplementedError, match="deform_conv_forward"):
        deform_conv2d(torch.randn(1, 1, 4, 4), torch.zeros(1, 18, 4, 4), torch.randn(1, 1, 3, 3), 1, 1)
    with pytest.raises(NotImplementedError, match="max pooling"):
        RoIAlign(2, pool_mode="max")(torch.randn(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 3, 3]]))
