"""Jobs of the training room that need no GPU and no torch."""

from typing import Any

from thawloop.campaigns.models import Campaign
from thawloop.core.jobs import JobContext, job
from thawloop.releases.services import freeze_release, materialise
from thawloop.training.models import Retraining
from thawloop.training.services import attach_release, consider_retraining, step_failed


@job(queue="raster", on_failed=step_failed)
def release(job: JobContext) -> dict[str, Any]:
    """A retraining's first step: freeze the labels and write the dataset directory."""
    retraining = Retraining.objects.select_related("campaign", "release").get(pk=job.args["retraining"])
    frozen = retraining.release or freeze_release(
        retraining.campaign, notes=f"For retraining {retraining.number}: {retraining.reason}"
    )
    attach_release(retraining, frozen)
    materialise(frozen, progress=job.progress)
    job.check_cancelled()
    frozen.refresh_from_db()
    attach_release(retraining, frozen)
    return {"release": frozen.version, **frozen.counts}


@job()
def consider(job: JobContext) -> dict[str, Any]:
    """Ask a campaign's retrain policy, e.g. after annotations came in."""
    retraining = consider_retraining(Campaign.objects.get(pk=job.args["campaign"]))
    return {"retraining": retraining.number if retraining else None}
