"""The leads' buttons: for each, the service it calls, the permission it needs, and the sentence it answers with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from thawloop.campaigns.models import Campaign
from thawloop.core.errors import Refused
from thawloop.core.jobs import cancel_job, enqueue, retry_job
from thawloop.core.models import Job
from thawloop.registry.models import ModelVersion, Promotion
from thawloop.registry.services import promote, rollback
from thawloop.training import services as training
from thawloop.training.models import Retraining


@dataclass(frozen=True)
class LeadAction:
    """One button."""

    permission: str
    run: Callable[[Campaign, Mapping[str, str]], str]


def _reason(form: Mapping[str, str], default: str) -> str:
    return form.get("reason", "").strip() or default


def _retrain(campaign: Campaign, form: Mapping[str, str]) -> str:
    retraining = training.start_retraining(campaign, reason=_reason(form, "asked for on the campaign page"))
    return f"Retraining {retraining.number} has begun."


def _cancel_retraining(campaign: Campaign, form: Mapping[str, str]) -> str:
    retraining = campaign.retrainings.exclude(state__in=Retraining.FINISHED).first()
    if retraining is None:
        raise Refused(f"{campaign.title} is not retraining, so there is nothing to cancel.")
    training.cancel_retraining(retraining)
    return f"Retraining {retraining.number} is being cancelled."


def _promote(campaign: Campaign, form: Mapping[str, str]) -> str:
    version = ModelVersion.objects.filter(campaign=campaign, name=form.get("version", "")).first()
    if version is None:
        raise Refused(f"{campaign.title} has no model version {form.get('version', '')!r}; choose one from the list.")
    promote(version, kind=Promotion.Kind.MANUAL, reason=_reason(form, "promoted on the campaign page"))
    return f"{version.name} is the champion now; it is predicting the tiles."


def _roll_back(campaign: Campaign, form: Mapping[str, str]) -> str:
    promotion = rollback(campaign, reason=_reason(form, "rolled back on the campaign page"))
    return f"{promotion.champion.name} is the champion again."


def _job(campaign: Campaign, form: Mapping[str, str]) -> Job:
    try:
        return Job.objects.get(pk=UUID(form.get("job", "")), args__campaign=campaign.pk)
    except (ValueError, Job.DoesNotExist) as error:
        raise Refused(f"That is not a job of this campaign ({campaign.title}); reload the page.") from error


def _cancel_job(campaign: Campaign, form: Mapping[str, str]) -> str:
    return f"{cancel_job(_job(campaign, form))} is being cancelled."


def _retry_job(campaign: Campaign, form: Mapping[str, str]) -> str:
    return f"{retry_job(_job(campaign, form))} was queued."


def _accept_removals(campaign: Campaign, form: Mapping[str, str]) -> str:
    count = form.get("removals", "")
    if not count.isdecimal() or len(count) > 9:
        raise Refused("How many removals are accepted? Reload the page.")
    _exchange(campaign, accept_removals=int(count))
    return f"{count} removals are accepted; they are being recorded."


def _new_project(campaign: Campaign, form: Mapping[str, str]) -> str:
    _exchange(campaign, new_project=True)
    return "A new project in Label Studio is being made."


def _exchange(campaign: Campaign, **options: Any) -> None:
    """By a job of its own: a running one does not know what a lead has just decided."""
    key = ":".join(["sync", str(campaign.pk), *options])
    enqueue("labeling.labelstudio.jobs.synchronise", key=key, args={"campaign": campaign.pk, **options})


ACTIONS = {
    "accept-removals": LeadAction("campaigns.sync_campaign", _accept_removals),
    "new-project": LeadAction("campaigns.sync_campaign", _new_project),
    "retrain": LeadAction("training.start_retraining", _retrain),
    "cancel-retraining": LeadAction("training.start_retraining", _cancel_retraining),
    "promote": LeadAction("registry.promote_modelversion", _promote),
    "roll-back": LeadAction("registry.promote_modelversion", _roll_back),
    "cancel-job": LeadAction("core.change_job", _cancel_job),
    "retry-job": LeadAction("core.change_job", _retry_job),
}
