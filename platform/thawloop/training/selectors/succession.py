"""What is being trained and predicted."""

from thawloop.campaigns.models import Campaign
from thawloop.core.models import Job
from thawloop.registry.models import ModelVersion
from thawloop.training.models import Retraining

PREDICT = "ml_backend.jobs.predict"  # the job; args `campaign`, `model_version`, `tiles` where it is not all


def active_retraining(campaign: Campaign) -> Retraining | None:
    """The campaign's retraining that has not ended yet."""
    return campaign.retrainings.exclude(state__in=Retraining.FINISHED).first()


def is_predicting(campaign: Campaign, version: ModelVersion) -> bool:
    """Whether a job that has a version predict all of a campaign's tiles is queued or running."""
    jobs = Job.objects.filter(function=PREDICT, state__in=Job.ACTIVE, args__model_version=version.pk)
    return jobs.filter(args__campaign=campaign.pk).exclude(args__has_key="tiles").exists()
