"""Jobs of the exchange with Label Studio."""

from typing import Any

from labeling.labelstudio.preannotations import refresh_preannotations, tidy_preannotations
from labeling.labelstudio.push import push_tasks
from labeling.labelstudio.submissions import settle_again
from labeling.labelstudio.sync import new_project, sync
from labeling.labelstudio.webhooks import process_pending_events
from thawloop.campaigns.models import Campaign
from thawloop.core.jobs import JobContext, job


@job()
def process_events(job: JobContext) -> dict[str, Any]:
    """Process a campaign's stored webhooks: args `campaign`."""
    return {"events": process_pending_events(_campaign(job), go_on=lambda: not job.should_stop())}


@job()
def push(job: JobContext) -> dict[str, Any]:
    """Put a campaign's pending tasks into Label Studio: args `campaign`."""
    return {"tasks": push_tasks(_campaign(job))}


@job()
def refresh(job: JobContext) -> dict[str, Any]:
    """Give open tasks the champion's predictions: args `campaign`."""
    return {"tasks": refresh_preannotations(_campaign(job))}


@job()
def tidy(job: JobContext) -> dict[str, Any]:
    """Remove predictions from Label Studio that were replaced: args `campaign`."""
    return {"tasks": tidy_preannotations(_campaign(job), go_on=lambda: not job.should_stop())}


@job()
def synchronise(job: JobContext) -> dict[str, Any]:
    """Sync a campaign with Label Studio: args `campaign`, `full`, `new_project`, `accept_removals`."""
    campaign = _campaign(job)
    if job.args.get("new_project"):
        new_project(campaign)
    report = sync(campaign, full=bool(job.args.get("full")), accept_removals=job.args.get("accept_removals"))
    return vars(report)


@job()
def settle(job: JobContext) -> dict[str, Any]:
    """Update labels where a submission was not understood: args `campaign`."""
    return {"tasks": settle_again(_campaign(job))}


def _campaign(job: JobContext) -> Campaign:
    return Campaign.objects.get(pk=job.args["campaign"])
