"""What to train, and from which weights: decided once per retraining, before the first training begins."""

from dataclasses import dataclass, field
from typing import Any

from labeling.configuration import DetectorSettings
from labeling.models import Campaign
from thawloop.core.storage import artifact
from thawloop.training.architecture import Architecture, read_card
from thawloop.training.errors import ModelRefused
from thawloop.training.models import ModelVersion, TrainingRun
from thawloop.training.selectors.succession import champion

STACK = "stack"


@dataclass(frozen=True)
class TrainingPlan:
    """The trainings of one retraining.

    Attributes:
        architecture: Of the multimodal model.
        warm_start: The champion, where its weights fit.
        unimodal: Modality to artifact name of weights that exist already.
        to_pretrain: Modalities to be trained alone first.
    """

    architecture: Architecture
    warm_start: ModelVersion | None = None
    unimodal: dict[str, str] = field(default_factory=dict)
    to_pretrain: tuple[str, ...] = ()

    @property
    def start_in_words(self) -> str:
        """What the (multimodal) training starts from."""
        if self.warm_start:
            return f"starting from the champion {self.warm_start.name}"
        if self.unimodal or self.to_pretrain:
            return f"starting from unimodal weights of {', '.join(self.architecture.names)}"
        return "from scratch"


def plan_training(campaign: Campaign, architecture: Architecture) -> TrainingPlan:
    """Choose the start of a campaign's next model.

    A champion of the same architecture is continued. Otherwise each modality gets a backbone pretrained alone, unless
    there is only one, or modalities are stacked into one backbone, or pretraining is switched off; weights that an
    earlier retraining pretrained for the same size, bands and classes are used again.
    """
    current = champion(campaign)
    if current is not None and _fits(current.path, architecture):
        return TrainingPlan(architecture, warm_start=current)
    settings = DetectorSettings.from_json(campaign.detector)
    if len(architecture.names) < 2 or architecture.fusion == STACK or not settings.pretrain_iterations:
        return TrainingPlan(architecture)
    there = {name: path for name in architecture.names if (path := _pretrained(campaign, architecture.alone(name)))}
    return TrainingPlan(
        architecture,
        unimodal=there,
        to_pretrain=tuple(name for name in architecture.names if name not in there),
    )


def detector_config(campaign: Campaign, architecture: Architecture, *, seed: int, pretrain: str = "") -> dict[str, Any]:
    """The detector's configuration (`DetectorConfig` as JSON) for one training.

    Args:
        campaign: Gives the settings.
        architecture: Of the multimodal model.
        seed: Of weights and data order.
        pretrain: A modality to be trained alone; all together if empty.
    """
    settings = DetectorSettings.from_json(campaign.detector)
    config: dict[str, Any] = {
        "size": settings.size,
        "fusion": settings.fusion,
        "modalities": [pretrain] if pretrain else architecture.names,
        "anchor": pretrain or architecture.anchor,
        "iterations": settings.pretrain_iterations if pretrain else settings.iterations,
        "batch_size": settings.batch_size,
        "image_size": settings.image_size,
        "modality_dropout": settings.modality_dropout,
        "empty_share": settings.empty_share,
        "seed": seed,
    }
    if settings.learning_rate is not None:
        config["learning_rate"] = settings.learning_rate
    return config


def _pretrained(campaign: Campaign, wanted: Architecture) -> str | None:
    """Artifact name of the newest weights of that unimodal architecture."""
    paths = (
        TrainingRun.objects.filter(
            retraining__campaign=campaign, stage=TrainingRun.Stage.PRETRAIN, modality__name=wanted.anchor
        )
        .exclude(path="")
        .order_by("-id")
        .values_list("path", flat=True)
    )
    return next((path for path in paths if _fits(path, wanted)), None)


def _fits(path: str, wanted: Architecture) -> bool:
    """Whether an artifact is there and of that architecture; a lost or damaged one cannot be started from."""
    try:
        return Architecture.of_card(read_card(artifact(path))) == wanted
    except ModelRefused:
        return False
