"""Synchronisation with Label Studio: what webhooks missed is recorded, and pending tasks are pushed."""

from datetime import timedelta

import structlog
from django.core.cache import cache
from django.db import transaction
from django.utils import timezone

from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import ExchangeStopped, LabelStudioRefused, RemovalsUnconfirmed
from labeling.labelstudio.identity import resumed
from labeling.labelstudio.preannotations import has_outdated_preannotations, refresh_preannotations
from labeling.labelstudio.projects import connections, ensure_project
from labeling.labelstudio.pull import ACCEPT, OVERLAP, Pull, SyncReport, in_label_studio
from labeling.labelstudio.push import push_tasks
from labeling.labelstudio.webhooks import enqueue_processing
from labeling.models import AnnotationTask, WebhookEvent
from thawloop.campaigns.models import Campaign
from thawloop.core.context import acting
from thawloop.core.errors import Conflict, Refused
from thawloop.core.locks import exclusive
from thawloop.core.services import audit

log = structlog.get_logger(__name__)

# All tasks are compared if their number differs from ours, but not more often than this.
FULL_COMPARISON = timedelta(minutes=10)


def sync(campaign: Campaign, *, full: bool = False, accept_removals: int | None = None) -> SyncReport:
    """Bring a campaign's annotations up to date with Label Studio; if it is active, push its pending tasks.

    Annotations that changed are recorded. An annotation that is gone becomes a DELETED row and its labels are retired;
    a task that is gone becomes WITHDRAWN, its annotations deleted; it is not pushed again. More than a few such
    removals at once wait for a lead, and so does everything if the project is not the campaign's own.

    Args:
        campaign: The campaign.
        full: Compare every task, not only those that changed since the last sync.
        accept_removals: How many removals a lead accepts: the number that an earlier sync named.

    Raises:
        ExchangeStopped: It waits for a lead; `campaign.ls_stopped` says why. What is new was recorded.
        LabelStudioUnavailable: Label Studio does not answer, or refuses our token. What was done until then stays done.
    """
    report = SyncReport()
    if accept_removals is not None:
        audit(ACCEPT, campaign, after={"removals": accept_removals})
    with acting(name="sync"):
        if campaign.ls_project_id is not None:
            with exclusive(f"sync:{campaign.pk}"), Client() as client:
                _pull(campaign, client, report, full=full, accepted=accept_removals)
            if campaign.ls_connections != connections():
                ensure_project(campaign)
        if campaign.state == Campaign.State.ACTIVE:
            if campaign.tasks.filter(state=AnnotationTask.State.PENDING).exists():
                report.pushed = push_tasks(campaign)
            if has_outdated_preannotations(campaign):
                report.refreshed = refresh_preannotations(campaign)
    return report


def new_project(campaign: Campaign) -> int:
    """Leave a campaign's project, so that the next push creates a new one: it is gone, or its number is another's.

    Also one that holds less than it did, as after its database was restored from a backup: what is new in it is
    recorded first. Annotations and labels stay as they are; their numbers are the old project's from now on. Tasks
    that waited for an annotator, or for a correction, wait to be pushed again.

    Returns:
        How many tasks wait.

    Raises:
        Conflict: The project is still there, with all that it held.
    """
    if campaign.ls_project_id is None:
        return 0
    with exclusive(f"push:{campaign.pk}"), exclusive(f"sync:{campaign.pk}"), Client() as client:
        campaign.refresh_from_db()
        _leave_project(campaign, client)
        before = {"ls_project_id": campaign.ls_project_id, "ls_generation": campaign.ls_generation}
        undone = [AnnotationTask.State.OPEN, AnnotationTask.State.SKIPPED, AnnotationTask.State.RETURNED]
        with transaction.atomic():
            count = campaign.tasks.filter(state__in=undone).update(state=AnnotationTask.State.PENDING)
            # Numbers of the old project: looked for in the new one, they would pass for tasks that somebody deleted.
            campaign.tasks.update(ls_task_id=None)
            for name in ("ls_project_id", "ls_view_id", "ls_webhook_id", "ls_ml_backend_id", "ls_synced_until"):
                setattr(campaign, name, None)
            campaign.ls_mark = ""
            campaign.ls_generation += 1
            campaign.save()
            audit("labeling.new_project", campaign, before=before, after={"waiting": count})
            resumed(campaign)
    return count


def reconcile(campaign: Campaign | None = None) -> list[str]:
    """Sync a campaign, or every one that is not closed; one that fails does not hold up the others.

    Returns:
        What was done, one sentence each.

    Raises:
        Refused: A campaign could not be synced; the others were.
    """
    done, failures = [], []
    for found in [campaign] if campaign else Campaign.objects.exclude(state=Campaign.State.CLOSED):
        try:
            report = sync(found)
        except Refused as error:
            failures.append(str(error))
            continue
        if report:
            done.append(f"{found.name}: {report}")
    if failures:
        raise Refused(" ".join(dict.fromkeys(failures)))
    return done


def reconcile_events(campaign: Campaign | None = None) -> list[str]:
    """Have stored webhooks processed, of a campaign or of all, that no job processes: a job that ends may miss one."""
    old = timezone.now() - timedelta(seconds=5)
    waiting = WebhookEvent.objects.filter(processed__isnull=True, received__lt=old, campaign__isnull=False)
    if campaign is not None:
        waiting = waiting.filter(campaign=campaign)
    campaigns = Campaign.objects.filter(pk__in=waiting.values("campaign").distinct())
    for found in campaigns:
        enqueue_processing(found)
    return [f"{found.name}: webhooks waited to be processed" for found in campaigns]


def _pull(campaign: Campaign, client: Client, report: SyncReport, *, full: bool, accepted: int | None) -> None:
    campaign.refresh_from_db()
    try:
        pull = Pull(campaign, client, report)
    except ExchangeStopped:
        cache.delete(_comparison_key(campaign))  # when its project is there again, everything is compared
        raise
    counts_differ = pull.task_count != in_label_studio(campaign).count()
    wanted = full or accepted is not None or campaign.ls_synced_until is None
    compare_all = wanted or ((counts_differ or bool(campaign.ls_stopped)) and _comparison_due(campaign))
    pull.changes(None if compare_all or campaign.ls_synced_until is None else campaign.ls_synced_until - OVERLAP)
    if compare_all:
        cache.set(_comparison_key(campaign), True, FULL_COMPARISON.total_seconds())
    elif campaign.ls_removals is not None:
        raise RemovalsUnconfirmed(campaign.ls_stopped, campaign.ls_removals)
    pull.finish(accepted)
    resumed(campaign)
    Campaign.objects.filter(pk=campaign.pk).update(ls_synced_until=pull.began)
    campaign.ls_synced_until = pull.began


def _leave_project(campaign: Campaign, client: Client) -> None:
    """Record what is new in the project that is left, if it is the campaign's own and holds less than it did."""
    try:
        pull = Pull(campaign, client, SyncReport())
    except ExchangeStopped:
        return
    number = campaign.ls_project_id
    with acting(name="sync"):
        pull.changes(None)
    if not pull.exceeds_limit:
        raise Conflict(
            f"Project {number} of campaign {campaign.name} is still in Label Studio, with all that it held: the "
            "campaign goes on in it."
        )
    title = f"Left: {client.project(pull.number)['title']}"[:50]
    try:
        client.change_project(pull.number, {"title": title})
    except LabelStudioRefused as error:
        log.warning("the old project could not be renamed", project=number, why=str(error))


def _comparison_key(campaign: Campaign) -> str:
    return f"labeling.full_comparison.{campaign.pk}"


def _comparison_due(campaign: Campaign) -> bool:
    return cache.get(_comparison_key(campaign)) is None
