"""What to train, and from which weights: decided once per retraining, before the first training begins."""

from dataclasses import dataclass, field
from typing import Any

from contracts.stages import PRETRAINING_SEEDS, pretrained_alone
from thawloop.campaigns.models import Campaign, Split
from thawloop.campaigns.settings import DetectorSettings
from thawloop.core.storage import artifact
from thawloop.registry.cards import WEIGHTS_FILE, read_card
from thawloop.registry.errors import ModelRefused
from thawloop.registry.models import ModelVersion
from thawloop.registry.selectors import champion
from thawloop.training.architecture import Architecture
from thawloop.training.models import TrainingRun
from thawloop.training.selectors.policy import holds_labels

SCORES = "anchor_scores"


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
            choice = ", the anchor being the one that finds the most alone" if self.architecture.choose else ""
            alone = [name for name in self.architecture.names if name in {*self.unimodal, *self.to_pretrain}]
            return f"starting from unimodal weights of {', '.join(alone)}{choice}"
        return "from scratch"


def plan_training(campaign: Campaign, architecture: Architecture) -> TrainingPlan:
    """Choose the start of a campaign's next model.

    A champion of the same architecture is continued. Otherwise the joint training starts from detectors of single
    modalities (`contracts.stages`, as the detector's own stages), unless there is only one or pretraining is switched
    off; weights that an earlier retraining pretrained for the same size, bands and classes are used again.

    An anchor that is to be chosen is chosen once in a campaign for the same size, fusion and modalities, by pretrained
    detectors, as soon as labels on val tiles can tell. Until then a champion is continued on its own.
    """
    settings = DetectorSettings.from_json(campaign.detector)
    pretrains = len(architecture.names) > 1 and settings.pretrain_iterations > 0
    current = champion(campaign)
    known = _architecture(current.path) if current else None
    if architecture.choose:
        if chosen := _chosen_anchor(campaign, architecture):
            architecture = architecture.settled(chosen)
        elif not (pretrains and holds_labels(campaign, Split.VAL)):
            goes_on = known is not None and known == architecture.settled(known.anchor)
            architecture = known if known and goes_on else architecture.settled(architecture.anchor)
    if known == architecture and not architecture.choose:
        return TrainingPlan(architecture, warm_start=current)
    if not pretrains:
        return TrainingPlan(architecture)
    anchor = None if architecture.choose else architecture.anchor
    alone = pretrained_alone(architecture.names, fusion=architecture.fusion, anchor=anchor)
    there = {name: path for name in alone if (path := _pretrained(campaign, architecture.alone(name)))}
    return TrainingPlan(architecture, unimodal=there, to_pretrain=tuple(name for name in alone if name not in there))


def detector_config(campaign: Campaign, architecture: Architecture, *, seed: int, pretrain: str = "") -> dict[str, Any]:
    """The detector's configuration (`DetectorConfig` as JSON) for one training.

    Args:
        campaign: Gives the settings.
        architecture: Of the multimodal model.
        seed: Of weights and data order; of the fine-tuning.
        pretrain: A modality to be trained alone; all together if empty.
    """
    settings = DetectorSettings.from_json(campaign.detector)
    config: dict[str, Any] = {
        "size": settings.size,
        "fusion": settings.fusion,
        "modalities": [pretrain] if pretrain else architecture.names,
        "anchor": pretrain or ("" if architecture.choose else architecture.anchor),
        "iterations": settings.pretrain_iterations if pretrain else settings.iterations,
        "batch_size": settings.batch_size,
        "image_size": settings.image_size,
        "modality_dropout": settings.modality_dropout,
        "empty_share": settings.empty_share,
        "seed": seed + PRETRAINING_SEEDS if pretrain else seed,
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
    return next((path for path in paths if _architecture(path) == wanted), None)


def _chosen_anchor(campaign: Campaign, wanted: Architecture) -> str | None:
    """The anchor that measurement has chosen for such a model before."""
    runs = TrainingRun.objects.filter(
        retraining__campaign=campaign, stage=TrainingRun.Stage.FINETUNE, init__has_key=SCORES
    ).order_by("-id")
    shape = (wanted.size, wanted.fusion, wanted.names)
    configs = (run.config for run in runs)
    return next((c["anchor"] for c in configs if (c["size"], c["fusion"], c["modalities"]) == shape), None)


def _architecture(path: str) -> Architecture | None:
    """What an artifact is; None of one that is lost in part or whole, which cannot be started from."""
    try:
        card = read_card(artifact(path))
    except ModelRefused:
        return None
    return Architecture.of_card(card) if (artifact(path) / WEIGHTS_FILE).is_file() else None
