"""Ignored regions: neither object nor background, in the RPN and in every stage of the cascade."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ml_backend.detector import DetectorConfig, ModalitySpec
from ml_backend.detector.data import training_sample
from ml_backend.detector.dataset import AnnotatedInstance, Tile
from ml_backend.detector.model.build import build_model
from ml_backend.detector.model.openmmlab import InstanceData

SIZE = 64
BIG, SMALL = (8, 8, 48, 48), (20, 20, 32, 32)
RGB = ModalitySpec("rgb", ("r", "g", "b"), mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_model(DetectorConfig(modalities=("rgb",), anchor="rgb"), (RGB,), 1)


def sample(*boxes: tuple[tuple[int, int, int, int], bool]) -> Any:
    masks = np.zeros((len(boxes), SIZE, SIZE), dtype=bool)
    for mask, ((x1, y1, x2, y2), _) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    instances = tuple(AnnotatedInstance(number, [], 0, ignored) for number, (_, ignored) in enumerate(boxes))
    return training_sample(Tile(1, "t.tif", SIZE, SIZE, None, instances), masks)


def share_within(boxes: torch.Tensor, region: tuple[int, int, int, int]) -> torch.Tensor:
    x1, y1, x2, y2 = region
    width = (boxes[:, 2].clamp(max=x2) - boxes[:, 0].clamp(min=x1)).clamp(min=0)
    height = (boxes[:, 3].clamp(max=y2) - boxes[:, 1].clamp(min=y1)).clamp(min=0)
    return width * height / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


@pytest.mark.parametrize("others", [(), (((50, 50, 62, 62), False),)], ids=["alone", "beside an object"])
def test_no_anchor_in_an_ignored_region_is_background_to_the_rpn(model: nn.Module, others: tuple[Any, ...]) -> None:
    head = model.rpn_head
    tile = sample((BIG, True), *others)
    tile.set_metainfo({"pad_shape": (SIZE, SIZE)})
    anchors, valid = head.get_anchors(
        [(SIZE // s, SIZE // s) for s in (4, 8, 16, 32, 64)], [tile.metainfo], device="cpu"
    )
    torch.manual_seed(0)
    targets = head.get_targets(
        anchors, valid, [tile.gt_instances], [tile.metainfo], batch_gt_instances_ignore=[tile.ignored_instances]
    )
    labels, weights = (torch.cat([level[0] for level in levels]) for levels in targets[:2])
    background = torch.cat(anchors[0])[(weights > 0) & (labels == 1)]
    assert len(background) > 100
    assert share_within(background, BIG).max() <= 0.5


def test_in_every_stage_proposals_there_are_neither_but_an_object_inside_is_learnt(model: nn.Module) -> None:
    tile = sample((BIG, True), (SMALL, False))
    proposals = torch.tensor([[10, 10, 18, 18], SMALL, [50, 50, 60, 60]], dtype=torch.float32)
    for assigner in model.roi_head.bbox_assigner:
        assert assign(assigner, proposals, tile) == [-1, 1, 0]


def test_a_tile_with_nothing_but_an_ignored_region_teaches_background_only_elsewhere(model: nn.Module) -> None:
    tile = sample((BIG, True))
    proposals = torch.tensor([[10, 10, 18, 18], [50, 50, 60, 60]], dtype=torch.float32)
    for assigner in (model.rpn_head.assigner, *model.roi_head.bbox_assigner):
        assert assign(assigner, proposals, tile) == [-1, 0]


def assign(assigner: Any, boxes: torch.Tensor, tile: Any) -> list[int]:
    found: list[int] = assigner.assign(
        InstanceData(priors=boxes), tile.gt_instances, tile.ignored_instances
    ).gt_inds.tolist()
    return found
