"""Reconciliation with Label Studio: whatever webhooks missed is found, and what waits to be pushed is pushed."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from django.core.cache import cache
from django.db import transaction
from django.utils import timezone

from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import LabelStudioMissing, ProjectGone
from labeling.labelstudio.people import known_people
from labeling.locks import exclusive
from labeling.models import Annotation, AnnotationTask, Campaign, WebhookEvent
from labeling.services.annotations import record_annotation, record_deletion, withdraw_task
from labeling.services.preannotations import has_outdated_preannotations, refresh_preannotations
from labeling.services.tasks import push_tasks
from labeling.services.webhooks import enqueue_processing, find_task
from thawloop.core.context import acting
from thawloop.core.errors import Refused
from thawloop.core.services import audit

log = structlog.get_logger(__name__)
Json = dict[str, Any]

# Label Studio stamps a change before it commits it: look back so far.
OVERLAP = timedelta(seconds=60)
# If its number of tasks is not what we think, all are compared; not more often than this.
FULL_COMPARISON = timedelta(minutes=10)


@dataclass
class SyncReport:
    """What a sync found and did."""

    seen: int = 0
    recorded: int = 0
    deleted: int = 0
    withdrawn: int = 0
    pushed: int = 0
    refreshed: int = 0
    bad: int = 0

    def __bool__(self) -> bool:
        return any([self.recorded, self.deleted, self.withdrawn, self.pushed, self.refreshed, self.bad])


def sync(campaign: Campaign, *, full: bool = False) -> SyncReport:
    """Make what we know of a campaign's annotations equal to what Label Studio holds; if it is active, push what waits.

    Annotations that changed are recorded. An annotation that is gone becomes a DELETED row and its labels are retired;
    a task that is gone becomes WITHDRAWN, its annotations deleted; it is not pushed again.

    Args:
        campaign: The campaign.
        full: Compare every task, not only those that changed since the last sync.

    Raises:
        ProjectGone: Its project was deleted in Label Studio.
        LabelStudioUnavailable: Label Studio does not answer, or not to us. What was done until then stays done.
    """
    report = SyncReport()
    with acting(name="sync"):
        if campaign.ls_project_id is not None:
            with exclusive("sync", campaign), Client() as client:
                _pull(campaign, campaign.ls_project_id, client, report, full=full)
        if campaign.state == Campaign.State.ACTIVE:
            if campaign.tasks.filter(state=AnnotationTask.State.PENDING).exists():
                report.pushed = push_tasks(campaign)
            if has_outdated_preannotations(campaign):
                report.refreshed = refresh_preannotations(campaign)
    return report


def new_project(campaign: Campaign) -> int:
    """Forget a campaign's project that was deleted in Label Studio, so that the next push makes a new one.

    Annotations and labels stay as they are. Tasks that waited for an annotator wait to be pushed again.

    Returns:
        How many tasks wait.

    Raises:
        Refused: The project is still there.
    """
    if campaign.ls_project_id is None:
        return 0
    with exclusive("push", campaign), Client() as client:
        try:
            client.project(campaign.ls_project_id)
        except LabelStudioMissing:
            before = {"ls_project_id": campaign.ls_project_id}
        else:
            raise Refused(f"Project {campaign.ls_project_id} of campaign {campaign.name} is still in Label Studio.")
        with transaction.atomic():
            waiting = campaign.tasks.filter(state__in=[AnnotationTask.State.OPEN, AnnotationTask.State.SKIPPED])
            count = waiting.update(state=AnnotationTask.State.PENDING)
            # Ids of the old project: looked for in the new one, they would pass for tasks that somebody deleted.
            campaign.tasks.update(ls_task_id=None)
            for name in ("ls_project_id", "ls_view_id", "ls_webhook_id", "ls_ml_backend_id", "ls_synced_until"):
                setattr(campaign, name, None)
            campaign.save()
            audit("labeling.new_project", campaign, before=before, after={"waiting": count})
    return count


def reconcile() -> list[str]:
    """What the reconciler does for every campaign that is not closed; one that fails does not hold up the others.

    Returns:
        What was done, one sentence each.

    Raises:
        Refused: A campaign could not be synced; the others were.
    """
    done, failures = [], []
    for campaign in Campaign.objects.exclude(state=Campaign.State.CLOSED):
        try:
            report = sync(campaign)
        except Refused as error:
            failures.append(str(error))
            continue
        if report:
            done.append(f"{campaign.name}: {report}")
    if failures:
        raise Refused(" ".join(dict.fromkeys(failures)))
    return done


def reconcile_events() -> list[str]:
    """Have stored webhooks processed that no job looks after: one was missed when the last job ended."""
    old = timezone.now() - timedelta(seconds=5)
    waiting = WebhookEvent.objects.filter(processed__isnull=True, received__lt=old, campaign__isnull=False)
    campaigns = Campaign.objects.filter(pk__in=waiting.values("campaign").distinct())
    for campaign in campaigns:
        enqueue_processing(campaign)
    return [f"{campaign.name}: webhooks waited to be processed" for campaign in campaigns]


def _pull(campaign: Campaign, project: int, client: Client, report: SyncReport, *, full: bool) -> None:
    try:
        count = client.project(project)["task_number"]
    except LabelStudioMissing as error:
        raise ProjectGone(
            f"Project {project} of campaign {campaign.name} was deleted in Label Studio. Its annotations and labels "
            "are safe here. To go on with a new project, run "
            f"`manage.py sync --campaign {campaign.name} --new-project`."
        ) from error
    began = client.server_time
    known = dict(_in_label_studio(campaign).values_list("ls_task_id", "pk"))
    full = full or campaign.ls_synced_until is None or (count != len(known) and _comparison_due(campaign))
    since = None if full or campaign.ls_synced_until is None else campaign.ls_synced_until - OVERLAP
    seen = set()
    for found in client.tasks(project, changed_since=since):
        seen.add(found["id"])
        _take(campaign, found, client, report)
    report.seen = len(seen)
    if full:
        for identifier, pk in known.items():
            if identifier not in seen and not client.has_task(identifier):
                withdraw_task(campaign.tasks.get(pk=pk))
                report.withdrawn += 1
        cache.set(_comparison_key(campaign), True, FULL_COMPARISON.total_seconds())
    if began is not None:
        Campaign.objects.filter(pk=campaign.pk).update(ls_synced_until=began)
        campaign.ls_synced_until = began


def _take(campaign: Campaign, found: Json, client: Client, report: SyncReport) -> None:
    """Record what a task in Label Studio holds, and what it does not hold any more."""
    task = find_task(campaign, found)
    if task is None:
        return
    standing = set(
        task.annotations.filter(superseded_by__isnull=True)
        .exclude(kind=Annotation.Kind.DELETED)
        .values_list("ls_annotation_id", flat=True)
    )
    versions = {prediction["id"]: prediction.get("model_version") for prediction in found.get("predictions", [])}
    annotations = found.get("annotations", [])
    people = known_people(annotations, client)
    for payload in annotations:
        standing.discard(payload.get("id"))
        version = versions.get(payload.get("parent_prediction"))
        payload.setdefault("prediction", {"model_version": version})
        before = task.annotations.count()
        try:
            record_annotation(task, payload, people=people)
        except Refused as error:
            report.bad += 1
            log.warning("annotation not recorded", campaign=campaign.name, task=str(task.pk), why=str(error))
        report.recorded += task.annotations.count() > before
    for identifier in standing:
        # The listing may be older than the annotation: ask for it by its own address.
        if not client.has_annotation(identifier):
            record_deletion(task, identifier)
            report.deleted += 1


def _in_label_studio(campaign: Campaign) -> Any:
    return campaign.tasks.filter(ls_task_id__isnull=False).exclude(state=AnnotationTask.State.WITHDRAWN)


def _comparison_key(campaign: Campaign) -> str:
    return f"labeling.full_comparison.{campaign.pk}"


def _comparison_due(campaign: Campaign) -> bool:
    return cache.get(_comparison_key(campaign)) is None
