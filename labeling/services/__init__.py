"""Every change of state in the labeling room. Each service validates, writes in one transaction and audits."""

from labeling.services.annotations import record_annotation, record_deletion, withdraw_task
from labeling.services.batches import BatchItem, NothingToAcquire, acquire, next_batch_number, record_batch
from labeling.services.predictions import TilePrediction, store_prediction, store_predictions
from labeling.services.reviewing import review_label

__all__ = [
    "BatchItem",
    "NothingToAcquire",
    "TilePrediction",
    "acquire",
    "next_batch_number",
    "record_annotation",
    "record_batch",
    "record_deletion",
    "review_label",
    "store_prediction",
    "store_predictions",
    "withdraw_task",
]
