"""Assignment of anchors and proposals to ground truth, with ignored regions."""

from __future__ import annotations

from typing import Any

from ml_backend.detector.model.openmmlab import TASK_UTILS, MaxIoUAssigner


@TASK_UTILS.register_module()
class IgnoringAssigner(MaxIoUAssigner):  # type: ignore[misc]
    """mmdet's MaxIoUAssigner, with ignored regions that only exclude negatives.

    A box of which more than ``ignore_iof_thr`` lies in the box of an ignored region is not a negative. mmdet's own rule
    also removes the positives there, so that an object inside a large ignored region is not learnt, and it has no
    effect on tiles without objects, where ignored regions would be learnt as background.
    """

    def assign(self, pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any = None, **kwargs: Any) -> Any:
        """Assign as mmdet does; then change negatives (0) in ignored regions to ignored (-1)."""
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        if gt_instances_ignore is not None and len(gt_instances_ignore) and len(pred_instances.priors):
            share = self.iou_calculator(pred_instances.priors, gt_instances_ignore.bboxes, mode="iof").amax(dim=1)
            result.gt_inds[(result.gt_inds == 0) & (share > self.ignore_iof_thr)] = -1
        return result
