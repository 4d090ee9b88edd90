"""The cascade's RoI head, which also returns the scores and boxes of every stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ml_backend.detector.model.openmmlab import (
    MODELS,
    CascadeRoIHead,
    InstanceData,
    SingleRoIExtractor,
    bbox2roi,
    multiclass_nms,
)


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):  # type: ignore[misc]
    """mmdet's SingleRoIExtractor in float32; in mixed precision it would convert boxes to the type of the features.

    bfloat16 has eight significant bits: at 300 px it represents every second pixel only, and a slump may be ten pixels
    wide.
    """

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features float32 [R, C, h, w] of rois [R, 5] (image index, xyxy)."""
        found: Tensor = super().forward(tuple(map(Tensor.float, feats)), rois.float(), roi_scale_factor)
        return found


@MODELS.register_module()
class StagedCascadeRoIHead(CascadeRoIHead):  # type: ignore[misc]
    """mmdet's CascadeRoIHead; its predictions hold, besides boxes, scores, labels and masks:

    - ``stage_scores`` [n, stages]: each stage's own probability of the final class (the final score is that of their
      averaged logits),
    - ``stage_boxes`` [n, stages, 4]: each stage's regressed box, xyxy; the last is the final one,
    - ``class_entropy`` [n]: entropy of the final class distribution (with background), divided by its maximum,
    - ``mask_entropy`` [n]: mean binary entropy, in bits, of the mask probabilities over the RoI's cells.

    All except the boxes are in 0..1. Acquisition computes uncertainty and disagreement from them.
    """

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict[str, Any]],
        rpn_results_list: list[Any],
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list[Any]:
        """Run the cascade; boxes stay in network pixels until :meth:`predict_mask`, as in mmdet."""
        boxes = [result.bboxes for result in rpn_results_list]
        return [
            self.keep_best(logits, stage_boxes, rcnn_test_cfg)
            for logits, stage_boxes in self.refine(x, boxes, batch_img_metas)
        ]

    def refine(
        self, x: tuple[Tensor, ...], boxes: list[Tensor], batch_img_metas: list[dict[str, Any]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Refine boxes [p, 4] (xyxy, network pixels) of every image by all stages.

        Returns:
            Per image the stages' class logits [p, stages, K + 1] and regressed boxes [p, stages, 4].
        """
        counts = [len(b) for b in boxes]
        logits_of_stage, boxes_of_stage = [], []
        for stage in range(self.num_stages):
            out = self._bbox_forward(stage, x, bbox2roi(boxes))
            deltas = out["bbox_pred"].split(counts)
            coder = self.bbox_head[stage].bbox_coder
            boxes = [
                coder.decode(box, delta, max_shape=meta["img_shape"])
                for box, delta, meta in zip(boxes, deltas, batch_img_metas, strict=True)
            ]
            logits_of_stage.append(out["cls_score"].split(counts))
            boxes_of_stage.append(boxes)
        return [
            (
                torch.stack([logits[i] for logits in logits_of_stage], dim=1),
                torch.stack([stage_boxes[i] for stage_boxes in boxes_of_stage], dim=1),
            )
            for i in range(len(counts))
        ]

    def keep_best(self, logits: Tensor, stage_boxes: Tensor, cfg: Any) -> Any:
        """Apply score threshold and NMS to one image's logits [p, stages, K + 1] and stage_boxes [p, stages, 4]."""
        probability = logits.mean(dim=1).softmax(dim=1)
        kept, labels, indices = multiclass_nms(
            stage_boxes[:, -1], probability, cfg.score_thr, cfg.nms, cfg.max_per_img, return_inds=True
        )
        proposal = indices // (probability.shape[1] - 1)
        return self.describe(kept[:, :4], labels, kept[:, 4], logits[proposal], stage_boxes[proposal])

    def describe(self, boxes: Tensor, labels: Tensor, scores: Tensor, logits: Tensor, stage_boxes: Tensor) -> Any:
        """Instances of one image with the entries listed above: boxes [n, 4], logits [n, stages, K + 1]."""
        stages = logits.softmax(dim=2)
        final = logits.mean(dim=1).softmax(dim=1).clamp(min=1e-12)
        result = InstanceData()
        result.bboxes, result.scores, result.labels = boxes, scores, labels
        result.stage_scores = stages.gather(2, labels[:, None, None].expand(-1, stages.shape[1], 1))[..., 0]
        result.stage_boxes = stage_boxes
        result.class_entropy = -(final * final.log()).sum(dim=1) / torch.log(torch.tensor(float(final.shape[1])))
        return result

    def predict_mask(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict[str, Any]],
        results_list: list[Any],
        rescale: bool = False,
    ) -> list[Any]:
        """Average the stages' masks and paste them; arguments and result are those of mmdet's method."""
        probabilities = self.mask_probabilities(x, [result.bboxes for result in results_list])
        return self.paste(probabilities, batch_img_metas, results_list, rescale)

    def mask_probabilities(self, x: tuple[Tensor, ...], boxes: list[Tensor]) -> list[Tensor]:
        """The stages' averaged masks [n, K, m, m] of every image, in boxes [n, 4] (xyxy, network pixels)."""
        counts = [len(b) for b in boxes]
        if not sum(counts):
            return [b.new_zeros(0, self.mask_head[-1].num_classes, 1, 1) for b in boxes]
        rois = bbox2roi(boxes)
        stages = [self._mask_forward(stage, x, rois)["mask_preds"].sigmoid() for stage in range(self.num_stages)]
        return list(torch.split(torch.stack(stages).mean(dim=0), counts))

    def paste(
        self,
        probabilities: list[Tensor],
        batch_img_metas: list[dict[str, Any]],
        results_list: list[Any],
        rescale: bool = False,
    ) -> list[Any]:
        """Add ``mask_entropy`` and the masks [n, H, W] to the results, from :meth:`mask_probabilities`."""
        # kept off 0 and 1, where logarithms are infinite
        probabilities = [probability.clamp(1e-6, 1 - 1e-6) for probability in probabilities]
        for result, probability, meta in zip(results_list, probabilities, batch_img_metas, strict=True):
            own = probability[torch.arange(len(result), device=result.labels.device), result.labels]
            entropy = -(own * own.log2() + (1 - own) * (1 - own).log2())
            result.mask_entropy = entropy.mean(dim=(1, 2))
            if rescale:  # the mask head does the same to the final boxes
                result.stage_boxes = result.stage_boxes / result.bboxes.new_tensor(meta["scale_factor"]).repeat(2)
        logits = [probability.logit() for probability in probabilities]
        return list(
            self.mask_head[-1].predict_by_feat(logits, results_list, batch_img_metas, self.test_cfg, rescale=rescale)
        )
