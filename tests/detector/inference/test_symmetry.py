"""Test-time augmentation: what is seen in all symmetries turns with the tile."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch

from ml_backend.detector import ChipInput, ConfigError, Detection, Detector
from ml_backend.detector.inference.symmetry import TTA, Symmetry


@pytest.mark.parametrize("symmetry", TTA["d4"])
def test_symmetries_move_boxes_as_they_move_pixels_and_back(symmetry: Symmetry) -> None:
    image = torch.zeros(6, 9)
    image[1:3, 4:8] = 1
    box = torch.tensor([[4.0, 1.0, 8.0, 3.0]])
    turned, (x1, y1, x2, y2) = symmetry.image(image), symmetry.boxes(box, (6, 9))[0].int().tolist()
    assert tuple(turned.shape) == symmetry.size((6, 9))
    assert turned[y1:y2, x1:x2].all()
    assert turned.sum() == (y2 - y1) * (x2 - x1) == 8
    assert torch.equal(symmetry.image_back(turned), image)
    assert torch.equal(symmetry.boxes_back(symmetry.boxes(box, (6, 9)), (6, 9)), box)


def test_the_symmetries_are_all_different_and_start_with_the_identity() -> None:
    image = torch.arange(6.0).reshape(2, 3)
    for name, count in (("none", 1), ("flips", 4), ("d4", 8)):
        seen = [symmetry.image(image) for symmetry in TTA[name]]
        assert torch.equal(seen[0], image)
        assert len({(tuple(s.shape), tuple(s.ravel().tolist())) for s in seen}) == count


def turned(chip: ChipInput) -> ChipInput:
    """A quarter turn clockwise."""
    return ChipInput({name: np.rot90(a, -1, axes=(1, 2)).copy() for name, a in chip.arrays.items()}, {})


def polygon(detection: Detection) -> shapely.Polygon:
    return shapely.Polygon(detection.rings[0], detection.rings[1:])


def test_the_answer_turns_with_the_tile(detector: Detector, chips: list[ChipInput]) -> None:
    chip = ChipInput({name: array[:, :56] for name, array in chips[0].arrays.items()}, {})  # 56 x 64 pixels
    (one,), (other,) = (detector.predict([c], tta="d4", tolerance=0) for c in (chip, turned(chip)))
    assert len(one.detections) == len(other.detections) > 0
    np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-4)
    for detection, again in zip(one.detections, other.detections, strict=True):
        assert again.score == pytest.approx(detection.score, abs=1e-4)
        assert again.mask_entropy == pytest.approx(detection.mask_entropy, abs=1e-3)
        x1, y1, x2, y2 = detection.stage_boxes.T  # (x, y) becomes (56 - y, x)
        np.testing.assert_allclose(again.stage_boxes.T, [56 - y2, x1, 56 - y1, x2], atol=1e-2)
        moved = shapely.transform(polygon(detection), lambda xy: np.stack([56 - xy[:, 1], xy[:, 0]], axis=1))
        same = polygon(again)
        assert moved.intersection(same).area > 0.98 * moved.union(same).area


def test_one_view_is_not_what_it_sees_turned(detector: Detector, chips: list[ChipInput]) -> None:
    """Otherwise the test above would show nothing."""
    one, other = detector.predict([chips[0], turned(chips[0])])
    assert np.abs(one.embedding - other.embedding).max() > 1e-3


def test_flips_answer_a_mirrored_tile_mirrored(detector: Detector, chips: list[ChipInput]) -> None:
    mirrored = ChipInput({name: array[:, :, ::-1].copy() for name, array in chips[0].arrays.items()}, {})
    (one,), (other,) = detector.predict(chips[:1], tta="flips"), detector.predict([mirrored], tta="flips")
    for detection, again in zip(one.detections, other.detections, strict=True):
        assert again.score == pytest.approx(detection.score, abs=1e-4)
        x1, y1, x2, y2 = detection.stage_boxes.T
        np.testing.assert_allclose(again.stage_boxes.T, [64 - x2, y1, 64 - x1, y2], atol=1e-2)


def test_augmentation_works_in_windows(detector: Detector, mosaic: ChipInput) -> None:
    (result,) = detector.predict([mosaic], window=96, overlap=32, tta="flips")
    assert result.detections
    assert np.isfinite(result.embedding).all()


def test_an_unknown_augmentation_is_refused(detector: Detector, chips: list[ChipInput]) -> None:
    with pytest.raises(ConfigError, match="augmentation 'mirror' is unknown: use none, flips, d4"):
        detector.predict(chips[:1], tta="mirror")
