"""Who is champion, who was before, and what is being trained."""

from labeling.models import Campaign
from thawloop.core.models import Job
from thawloop.training.models import ModelAlias, ModelVersion, Promotion, Retraining

PREDICT = "ml_backend.jobs.predict"  # the job; args `campaign`, `model_version`, `tiles` where it is not all


def champion(campaign: Campaign) -> ModelVersion | None:
    """The model version that predicts a campaign's tiles now."""
    return ModelVersion.objects.filter(aliases__campaign=campaign, aliases__alias=ModelAlias.Alias.CHAMPION).first()


def previous_champion(campaign: Campaign) -> ModelVersion | None:
    """The champion that a rollback would bring back.

    Promotions are read as a stack: each puts its version on top, a rollback takes off what lay above its version. So
    a second rollback goes one further back instead of undoing the first.
    """
    reigns: list[int] = []
    for kind, version in campaign.promotions.order_by("id").values_list("kind", "champion"):
        if kind == Promotion.Kind.ROLLBACK and version in reigns:
            del reigns[len(reigns) - reigns[::-1].index(version) :]
        else:
            reigns.append(version)
    current = reigns[-1] if reigns else None
    earlier = next((version for version in reversed(reigns) if version != current), None)
    return None if earlier is None else ModelVersion.objects.get(pk=earlier)


def active_retraining(campaign: Campaign) -> Retraining | None:
    """The campaign's retraining that has not ended yet."""
    return campaign.retrainings.exclude(state__in=Retraining.FINISHED).first()


def is_predicting(campaign: Campaign, version: ModelVersion) -> bool:
    """Whether a job that has a version predict all of a campaign's tiles is queued or running."""
    jobs = Job.objects.filter(function=PREDICT, state__in=Job.ACTIVE, args__model_version=version.pk)
    return jobs.filter(args__campaign=campaign.pk).exclude(args__has_key="tiles").exists()
