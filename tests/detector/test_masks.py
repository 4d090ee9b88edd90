"""Masks to rings and back are identities up to the stated tolerance."""

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ml_backend.detector.masks import encode_rle, mask_rings, rings_mask, segmentation_mask

ANY_MASK = arrays(bool, st.tuples(st.integers(4, 20), st.integers(4, 20)))


def parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, count = ndimage.label(mask)
    sizes = ndimage.sum(mask, labels, range(1, count + 1))
    return np.asarray(sizes), labels


@given(ANY_MASK)
def test_unsimplified_rings_give_back_the_largest_part(mask: np.ndarray) -> None:
    rings = mask_rings(mask, tolerance=0)
    if not mask.any():
        assert rings == []
        return
    restored = rings_mask(rings, *mask.shape)
    sizes, labels = parts(mask)
    assert restored.sum() == sizes.max()
    assert len(np.unique(labels[restored])) == 1


@given(ANY_MASK.filter(lambda mask: bool(mask.any())))
def test_rings_are_closed_valid_and_inside_the_tile(mask: np.ndarray) -> None:
    rings = mask_rings(mask, tolerance=0.5)
    polygon = shapely.Polygon(rings[0], rings[1:])
    assert polygon.is_valid
    assert all((ring[0] == ring[-1]).all() for ring in rings)
    assert shapely.box(0, 0, mask.shape[1], mask.shape[0]).covers(polygon)


def test_a_hole_survives_and_the_outline_moves_at_most_by_the_tolerance() -> None:
    y, x = np.mgrid[:64, :64] + 0.5
    distance = np.hypot(x - 30, y - 34)
    mask = (distance < 22) & (distance > 8)
    rings = mask_rings(mask, tolerance=0.5)
    assert len(rings) == 2
    exact, simple = (shapely.Polygon(r[0], r[1:]) for r in (mask_rings(mask, 0), rings))
    assert shapely.hausdorff_distance(exact.exterior, simple.exterior) <= 0.5 + 1e-6
    assert len(rings[0]) < len(mask_rings(mask, 0)[0]) / 2  # a circle needs no staircase
    restored = rings_mask(rings, 64, 64)
    assert (restored & mask).sum() / (restored | mask).sum() > 0.95


def test_coordinates_are_pixel_corners() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:5, 7:11] = True
    (ring,) = mask_rings(mask)
    assert ring.min(axis=0).tolist() == [7, 2]
    assert ring.max(axis=0).tolist() == [11, 5]


def test_all_coco_forms_of_a_segmentation_agree() -> None:
    mask = np.zeros((12, 16), dtype=bool)
    mask[3:9, 4:12] = True
    rle = encode_rle(mask)
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    polygon = [[4, 3, 12, 3, 12, 9, 4, 9]]
    for form in (
        rle,
        {"size": [12, 16], "counts": rle["counts"].decode()},
        {"size": [12, 16], "counts": counts},
        polygon,
    ):
        assert np.array_equal(segmentation_mask(form, 12, 16), mask)
