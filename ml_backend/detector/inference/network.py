"""Running the network on a batch, in one or several symmetries.

With several (test-time augmentation), as in mmdet's ``aug_test``: the proposals of all views are pooled; the cascade of
every view classifies and refines every proposal, and logits and boxes of each stage are averaged over the views, as are
the probabilities of the masks. With all symmetries the result is equivariant: it turns with the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ml_backend.detector.data.samples import image_meta
from ml_backend.detector.inference.symmetry import Size, Symmetry
from ml_backend.detector.masks import FloatArray
from ml_backend.detector.model.openmmlab import DetDataSample, multiclass_nms

Prepared = tuple[Tensor, Size]  # float32 [C + M, h, w], and the tile's own (H, W)


@dataclass(frozen=True)
class _View:
    """A batch in one symmetry: FPN maps, mmdet's metainfo per tile, proposals [p, 5] with score, embeddings [B, D]."""

    symmetry: Symmetry
    pyramid: tuple[Tensor, ...]
    metas: list[dict[str, Any]]
    proposals: list[Tensor]
    embeddings: Tensor


@torch.inference_mode()
def detect(model: Any, tiles: Sequence[Prepared], symmetries: Sequence[Symmetry]) -> tuple[list[Any], FloatArray]:
    """Detect instances on tiles of one size.

    Returns:
        mmdet's InstanceData per tile on the CPU, in tile pixels and with masks [n, H, W], and embeddings [B, D].
    """
    views = [_run_view(model, tiles, symmetry) for symmetry in symmetries]
    if len(views) == 1:
        boxes = [proposals[:, :4] for proposals in views[0].proposals]
    else:
        boxes = [_pooled([view.proposals[i] for view in views], model.rpn_head.test_cfg) for i in range(len(tiles))]
    size = _network_size(tiles)
    head = model.roi_head
    found = [head.keep_best(*refined, head.test_cfg) for refined in _refined(model, views, boxes, size)]
    return _masked(model, views, found, size), _embeddings(views)


@torch.inference_mode()
def segment_boxes(
    model: Any,
    tiles: Sequence[Prepared],
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor | None],
    symmetries: Sequence[Symmetry],
) -> list[Any]:
    """Classify and segment given boxes: nothing is suppressed, and the masks are those of the boxes as given.

    Args:
        model: the detector.
        tiles: of one size.
        boxes: per tile [n, 4] xyxy in tile pixels.
        labels: per tile the classes [n], or None for the most probable ones.
        symmetries: to average over.

    Returns:
        As :func:`detect`, one instance per box, in order.
    """
    views = [_run_view(model, tiles, symmetry) for symmetry in symmetries]
    device = views[0].embeddings.device
    scales = [torch.tensor(meta["scale_factor"], dtype=torch.float32).repeat(2) for meta in views[0].metas]
    given = [(own * scale).to(device) for own, scale in zip(boxes, scales, strict=True)]
    found = []
    for i, (logits, stages) in enumerate(_refined(model, views, given, _network_size(tiles))):
        probability = logits.mean(dim=1).softmax(dim=1)
        wanted = labels[i]
        label = probability[:, :-1].argmax(dim=1) if wanted is None else wanted.to(device)
        scores = probability.gather(1, label[:, None])[:, 0]
        found.append(model.roi_head.describe(given[i].clone(), label, scores, logits, stages))
    return _masked(model, views, found, _network_size(tiles))


def _network_size(tiles: Sequence[Prepared]) -> Size:
    """(h, w) of the tiles in network pixels, before padding."""
    return (tiles[0][0].shape[1], tiles[0][0].shape[2])


def _run_view(model: Any, tiles: Sequence[Prepared], symmetry: Symmetry) -> _View:
    inputs = [symmetry.image(tensor) for tensor, _ in tiles]
    samples = [
        DetDataSample(metainfo=image_meta(symmetry.size(own), (tensor.shape[1], tensor.shape[2])))
        for tensor, (_, own) in zip(inputs, tiles, strict=True)
    ]
    batch = model.data_preprocessor({"inputs": inputs, "data_samples": samples})
    fused = model.backbone(batch["inputs"])
    pyramid = model.neck(fused)
    proposals = model.rpn_head.predict(pyramid, batch["data_samples"], rescale=False)
    planes = len(model.backbone.modalities)
    covered = batch["inputs"][:, -planes:].amax(dim=1, keepdim=True)
    weight = F.adaptive_avg_pool2d(covered, fused[-1].shape[-2:])
    embeddings = (fused[-1] * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1e-6)
    return _View(
        symmetry,
        pyramid,
        [sample.metainfo for sample in batch["data_samples"]],
        [
            torch.cat([symmetry.boxes_back(found.bboxes, _network_size(tiles)), found.scores[:, None]], dim=1)
            for found in proposals
        ],
        embeddings,
    )


def _pooled(proposals: Sequence[Tensor], cfg: Any) -> Tensor:
    """The best proposals [p, 4] of all views' [p, 5]: as many as one view has, without duplicates."""
    every = torch.cat(list(proposals))
    # one class and a background column, as multiclass_nms expects
    scores = torch.stack([every[:, 4], torch.zeros_like(every[:, 4])], dim=1)
    kept, _ = multiclass_nms(every[:, :4], scores, -1.0, cfg.nms, cfg.max_per_img)
    best: Tensor = kept[:, :4]
    return best


def _refined(model: Any, views: Sequence[_View], boxes: Sequence[Tensor], size: Size) -> list[tuple[Tensor, Tensor]]:
    """Logits [p, stages, K + 1] and boxes [p, stages, 4] of every tile's proposals, averaged over the views."""
    of_views = [
        model.roi_head.refine(view.pyramid, [view.symmetry.boxes(b, size) for b in boxes], view.metas) for view in views
    ]
    return [
        (
            torch.stack([logits for logits, _ in of_tile]).mean(dim=0),
            torch.stack(
                [view.symmetry.boxes_back(stages, size) for view, (_, stages) in zip(views, of_tile, strict=True)]
            ).mean(dim=0),
        )
        for of_tile in zip(*of_views, strict=True)
    ]


def _masked(model: Any, views: Sequence[_View], found: list[Any], size: Size) -> list[Any]:
    """Add the masks, whose probabilities are averaged over the views."""
    of_views = [
        [
            view.symmetry.image_back(probability)
            for probability in model.roi_head.mask_probabilities(
                view.pyramid, [view.symmetry.boxes(result.bboxes, size) for result in found]
            )
        ]
        for view in views
    ]
    probabilities = [torch.stack(of_tile).mean(dim=0) for of_tile in zip(*of_views, strict=True)]
    pasted = model.roi_head.paste(probabilities, views[0].metas, found, rescale=True)
    return [result.detach().cpu() for result in pasted]


def _embeddings(views: Sequence[_View]) -> FloatArray:
    mean = torch.stack([view.embeddings for view in views]).mean(dim=0)
    array: FloatArray = mean.float().cpu().numpy()
    return array
