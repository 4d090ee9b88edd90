"""Training in stages: a unimodal detector per modality, then a multimodal one that starts from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contracts.stages import FINETUNE, Stage, joint_start, plan_stages
from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.dataset import read_dataset
from ml_backend.detector.devices import choose_device
from ml_backend.detector.errors import ConfigError
from ml_backend.detector.progress import Progress
from ml_backend.detector.training.anchor import anchor_scores, best_anchor, kept_scores, require_choice
from ml_backend.detector.training.parts import check_parts
from ml_backend.detector.training.runfolder import TrainResult
from ml_backend.detector.training.single import train
from ml_backend.detector.training.team import join_team
from ml_backend.detector.training.warmstart import WarmStart, open_sources

SUMMARY = "stages.json"
CHOICE = "anchor.json"


@dataclass(frozen=True)
class StageTraining:
    """One training of the chain.

    Attributes:
        stage: what it is for, and what it starts from.
        config: what it trains, and how.
    """

    stage: Stage
    config: DetectorConfig

    @property
    def name(self) -> str:
        """Of its folder: ``pretrain-MODALITY`` or ``finetune``."""
        return self.stage.name

    @property
    def work(self) -> int:
        """Expected relative duration: number of backbone passes over tiles."""
        return self.config.iterations * self.config.step_tiles * len(self.config.modalities)


@dataclass(frozen=True)
class StagesResult:
    """A finished training in stages.

    Attributes:
        stages: result of each stage by name, in order; the last is the multimodal detector.
        anchor: the modality that the others were added to.
        anchor_scores: by modality, if the anchor was chosen by them (see :func:`.anchor.anchor_scores`); else empty.
        own_memory: whether the peak memory of later stages is their own, as on a GPU. On a CPU it is that of the
            process, including earlier stages, and is not reported for them.
    """

    stages: dict[str, TrainResult]
    anchor: str
    anchor_scores: dict[str, float]
    own_memory: bool

    @property
    def final(self) -> TrainResult:
        """The multimodal detector."""
        return self.stages[FINETUNE]

    @property
    def seconds(self) -> float:
        """Total of all stages."""
        return sum(result.seconds for result in self.stages.values())

    @property
    def peak_memory_mb(self) -> float:
        """Largest peak of all stages."""
        return max(result.peak_memory_mb for result in self.stages.values())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "checkpoint": str(self.final.checkpoint),
            "anchor": self.anchor,
            "anchor_scores": self.anchor_scores,
            "metrics": self.final.metrics,
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
            "stages": {
                name: {**result.to_json(), "peak_memory_mb": self.peak_of(name)} for name, result in self.stages.items()
            },
        }

    def peak_of(self, stage: str) -> float | None:
        """Peak memory of a stage in MiB; None if it cannot be separated from that of earlier ones."""
        first = stage == next(iter(self.stages))
        return self.stages[stage].peak_memory_mb if first or self.own_memory else None


def train_in_stages(
    dataset_dir: Path | str,
    out_dir: Path | str,
    config: DetectorConfig,
    *,
    pretrain: DetectorConfig | Mapping[str, DetectorConfig] | None = None,
    sources: Mapping[str, Path | str] | None = None,
    choose_anchor: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    resume: bool = True,
) -> StagesResult:
    """Pretrain a detector on each modality, then combine them and train all together.

    Every stage is a :func:`train` in its own folder below ``out_dir``, so the same call continues exactly after an
    interruption, and does not repeat finished stages.

    Args:
        dataset_dir: see :mod:`ml_backend.detector.dataset`.
        out_dir: gets ``pretrain-MODALITY/``, ``finetune/`` and, in the end, ``stages.json``; with ``choose_anchor``
            also ``anchor.json``, the scores it was chosen by.
        config: of the fine-tuning.
        pretrain: of the pretraining, for all modalities or by modality; ``modalities`` and ``anchor`` are set here. By
            default, and for modalities that are left out, it is ``config`` without its ``freeze`` and ``slow``. Its
            ``seed`` is raised as :meth:`contracts.stages.Stage.seed` does: fine-tuning sees tiles in another order,
            with other augmentation.
        sources: ``{modality: checkpoint trained on it}``: these modalities are not pretrained.
        choose_anchor: take as anchor the modality whose own detector finds the most on the validation split.
        device: see :func:`train`.
        progress: called with the share done of the whole (0..1), and a line of text that begins with the stage.
        should_stop: see :func:`train`.
        resume: see :func:`train`.

    Raises:
        DetectorError: as :func:`train`; or there is only one modality, or no anchor can be chosen.
    """
    given = {name: Path(path) for name, path in (sources or {}).items()}
    with join_team() as team:

        def plan() -> tuple[StageTraining, ...]:
            dataset = read_dataset(dataset_dir)
            joint = config.resolve(dataset)
            check_parts(joint)
            opened = open_sources(given, joint, dataset, any_anchor=choose_anchor)
            if choose_anchor:
                require_choice(dataset, config, opened)
            if not resume:
                WarmStart(None, opened).keep_out_of(Path(out_dir) / FINETUNE)
            for source in opened.values():
                source.weights()  # damaged ones are refused now rather than after the pretraining
            return plan_trainings(dataset_dir, config, pretrain, tuple(given), choose_anchor)

        def learn(
            training: StageTraining, settled: DetectorConfig, init: Mapping[str, Path] | None = None
        ) -> TrainResult:
            return train(
                dataset_dir,
                Path(out_dir) / training.name,
                settled,
                init=init,
                device=device,
                progress=_part_of(progress, trainings, training) if progress else None,
                should_stop=should_stop,
                resume=resume,
            )

        trainings = team.together(plan)
        *alone, last = trainings
        results = {training.name: learn(training, training.config) for training in alone}
        given |= {training.stage.pretrains: results[training.name].checkpoint for training in alone}
        joint = last.config
        scores: dict[str, float] = {}
        if choose_anchor:
            metrics = {training.stage.pretrains: results[training.name].metrics for training in alone}
            seen = read_dataset(dataset_dir).seen_by(joint.modalities)
            models = {name: given[name] for name in joint.modalities}
            note = Path(out_dir) / CHOICE
            scores = team.agreed(
                lambda: kept_scores(note, seen, models, lambda: anchor_scores(seen, models, metrics, device))
            )
            joint = replace(joint, anchor=best_anchor(scores, joint))
        init = joint_start(given, fusion=joint.fusion, anchor=joint.anchor)
        results[FINETUNE] = learn(last, joint, init)
        result = StagesResult(results, joint.anchor, scores, own_memory=choose_device(device).type == "cuda")
        team.first(lambda: replace_file(Path(out_dir) / SUMMARY, json.dumps(result.to_json(), indent=2).encode()))
    return result


def plan_trainings(
    dataset_dir: Path | str,
    config: DetectorConfig,
    pretrain: DetectorConfig | Mapping[str, DetectorConfig] | None = None,
    given: tuple[str, ...] = (),
    choose_anchor: bool = False,
) -> tuple[StageTraining, ...]:
    """The trainings of :func:`train_in_stages`, in order, as :func:`contracts.stages.plan_stages` plans them.

    Args:
        dataset_dir: see :mod:`ml_backend.detector.dataset`.
        config: of the fine-tuning.
        pretrain: of the pretraining.
        given: modalities that need no pretraining.
        choose_anchor: whether the anchor is chosen after pretraining; that of the last stage is provisional then.

    Raises:
        ConfigError: there is only one modality, or settings are given for one that is not used.
    """
    joint = config.resolve(read_dataset(dataset_dir))
    if len(joint.modalities) < 2:
        raise ConfigError(
            f"Training in stages joins several modalities, but only '{joint.anchor}' is used: train it alone "
            "(pretrain), or name more modalities."
        )
    by_modality = pretrain if isinstance(pretrain, Mapping) else {}
    for name in by_modality:
        if name not in joint.modalities:
            raise ConfigError(
                f"Pretraining settings are given for '{name}', but the training uses {', '.join(joint.modalities)}: "
                "leave them out or add the modality."
            )
    general = pretrain if isinstance(pretrain, DetectorConfig) else replace(joint, freeze=(), slow=())
    stages = plan_stages(
        joint.modalities, fusion=joint.fusion, anchor=None if choose_anchor else joint.anchor, there=given
    )
    return tuple(
        StageTraining(stage, _of_stage(stage, by_modality.get(stage.pretrains, general) if stage.pretrains else joint))
        for stage in stages
    )


def _of_stage(stage: Stage, config: DetectorConfig) -> DetectorConfig:
    anchor = config.anchor if stage.anchor is None else stage.anchor
    return replace(config, modalities=stage.modalities, anchor=anchor, seed=stage.seed(config.seed))


def _part_of(progress: Progress, trainings: tuple[StageTraining, ...], training: StageTraining) -> Progress:
    """A callback that reports progress of one training as progress of the whole."""
    number = trainings.index(training)
    total = sum(other.work for other in trainings)
    before = sum(other.work for other in trainings[:number])

    def tell(share: float, text: str) -> None:
        text = f"[{number + 1}/{len(trainings)} {training.name}] {text}"
        progress((before + share * training.work) / total, text)

    return tell
