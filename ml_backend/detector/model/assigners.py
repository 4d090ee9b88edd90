"""Which anchors and proposals learn what, where regions are to be ignored."""

from __future__ import annotations

from typing import Any

from ml_backend.detector.model.openmmlab import TASK_UTILS, MaxIoUAssigner


@TASK_UTILS.register_module()
class IgnoringAssigner(MaxIoUAssigner):  # type: ignore[misc]
    """mmdet's MaxIoUAssigner, with ignored regions that only keep background from being learnt.

    A box of which more than ``ignore_iof_thr`` lies in the box of an ignored region is no negative. mmdet's own rule
    also takes the positives there, so that an object inside of a large ignored region is not learnt, and it does
    nothing on tiles without objects, where ignored regions would be learnt as background.
    """

    def assign(self, pred_instances: Any, gt_instances: Any, gt_instances_ignore: Any = None, **kwargs: Any) -> Any:
        """Assign as mmdet's; then what would be background in an ignored region (0) counts as nothing (-1)."""
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        if gt_instances_ignore is not None and len(gt_instances_ignore) and len(pred_instances.priors):
            share = self.iou_calculator(pred_instances.priors, gt_instances_ignore.bboxes, mode="iof").amax(dim=1)
            result.gt_inds[(result.gt_inds == 0) & (share > self.ignore_iof_thr)] = -1
        return result
