"""Every change of state in the labeling room. Each service validates, writes in one transaction and audits."""

from labeling.services.annotations import record_annotation, record_deletion, withdraw_task
from labeling.services.batches import BatchItem, NothingToAcquire, acquire, next_batch_number, record_batch
from labeling.services.preannotations import refresh_preannotations, tidy_preannotations
from labeling.services.predictions import TilePrediction, store_prediction, store_predictions
from labeling.services.projects import ensure_project
from labeling.services.pull import SyncReport
from labeling.services.reviewing import review_label
from labeling.services.sync import sync
from labeling.services.tasks import push_tasks
from labeling.services.webhooks import process_pending_events, receive_webhook

__all__ = [
    "BatchItem",
    "NothingToAcquire",
    "SyncReport",
    "TilePrediction",
    "acquire",
    "ensure_project",
    "next_batch_number",
    "process_pending_events",
    "push_tasks",
    "receive_webhook",
    "record_annotation",
    "record_batch",
    "record_deletion",
    "refresh_preannotations",
    "review_label",
    "store_prediction",
    "store_predictions",
    "sync",
    "tidy_preannotations",
    "withdraw_task",
]
