"""What to train, and from which weights: decided once per retraining, before the first training begins."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from contracts.checkpoint import WEIGHTS_FILE
from contracts.settings import ModelSettings
from contracts.stages import Stage, plan_stages
from thawloop.campaigns.models import Campaign, Split
from thawloop.campaigns.settings import DetectorSettings
from thawloop.core.storage import artifact
from thawloop.registry.cards import read_card
from thawloop.registry.errors import ModelRefused
from thawloop.registry.models import ModelVersion
from thawloop.training.architecture import Architecture
from thawloop.training.models import TrainingRun
from thawloop.training.selectors.state import CampaignState

SCORES = "anchor_scores"


@dataclass(frozen=True)
class TrainingPlan:
    """The trainings of one retraining.

    Attributes:
        stages: In order; the last one makes the model.
        champion: What the last one continues, if it continues anything.
        unimodal: Modality to artifact name of weights that exist already.
    """

    stages: tuple[Stage, ...]
    champion: ModelVersion | None = None
    unimodal: Mapping[str, str] = field(default_factory=dict)

    @property
    def start_in_words(self) -> str:
        """What the training of the model starts from."""
        last = self.stages[-1]
        if last.continues and self.champion:
            return f"starting from the champion {self.champion.name}"
        if last.sources:
            choice = ", the anchor being the one that finds the most alone" if last.anchor is None else ""
            return f"starting from unimodal weights of {', '.join(last.sources)}{choice}"
        return "from scratch"


def plan_training(state: CampaignState, architecture: Architecture) -> TrainingPlan:
    """Find out what there is for the stages of a campaign's next model to start from; `contracts.stages` plans them.

    A champion of the same architecture can be continued. Weights that an earlier retraining pretrained for the same
    size, bands and classes are used again.

    An anchor that is to be chosen is chosen once in a campaign for the same size, fusion and modalities, by pretrained
    detectors, as soon as labels on val tiles can tell. Until then a champion is continued on its own.
    """
    pretrains = len(architecture.names) > 1 and state.settings.pretrain_iterations > 0
    current = state.champion
    known = _architecture(current.path) if current else None
    if architecture.choose:
        if chosen := _chosen_anchor(state.campaign, architecture):
            architecture = architecture.settled(chosen)
        elif not (pretrains and Split.VAL in state.stock.teaching):
            goes_on = known is not None and known == architecture.settled(known.anchor)
            architecture = known if known and goes_on else architecture.settled(architecture.anchor)
    there = _pretrained(state.campaign, architecture)
    stages = plan_stages(
        architecture.names,
        fusion=architecture.fusion,
        anchor=None if architecture.choose else architecture.anchor,
        there=there,
        can_continue=known == architecture,
        pretrains=pretrains,
    )
    return TrainingPlan(stages, current, there)


def detector_config(settings: DetectorSettings, stage: Stage, *, seed: int) -> dict[str, Any]:
    """The detector's configuration (`DetectorConfig` as JSON) for one training.

    Args:
        settings: The campaign's.
        stage: What is trained.
        seed: Of the whole retraining.
    """
    shared = {setting.name: getattr(settings, setting.name) for setting in fields(ModelSettings)}
    own = {
        "modalities": list(stage.modalities),
        "anchor": stage.anchor or "",
        "iterations": settings.iterations_of(stage),
        "seed": stage.seed(seed),
    }
    rate = {} if settings.learning_rate is None else {"learning_rate": settings.learning_rate}
    return {**shared, **own, **rate}


def _pretrained(campaign: Campaign, architecture: Architecture) -> dict[str, str]:
    """Modality to the artifact name of the newest weights of that unimodal architecture, where there are any."""
    runs = TrainingRun.objects.filter(
        retraining__campaign=campaign, stage=TrainingRun.Stage.PRETRAIN, modality__name__in=architecture.names
    )
    found: dict[str, str] = {}
    for name, path in runs.exclude(path="").order_by("-id").values_list("modality__name", "path"):
        if name not in found and _architecture(path) == architecture.alone(name):
            found[name] = path
    return found


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
