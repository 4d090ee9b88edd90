"""Every change of state in the labeling room. Each service validates, writes in one transaction and audits."""

from labeling.services.annotations import record_annotation, record_deletion, withdraw_task
from labeling.services.sync import SyncReport, sync
from labeling.services.tasks import ensure_project, push_tasks, refresh_preannotations
from labeling.services.webhooks import process_event, process_pending_events, receive_webhook

__all__ = [
    "SyncReport",
    "ensure_project",
    "process_event",
    "process_pending_events",
    "push_tasks",
    "receive_webhook",
    "record_annotation",
    "record_deletion",
    "refresh_preannotations",
    "sync",
    "withdraw_task",
]
