"""The trainings of a comparison, in order.

Every weight is trained for the same number of steps on the same tiles in the same order in all rows: ``staged``
is unimodal pretraining followed by fine-tuning, ``joint`` is training from scratch for the sum of both. A single
modality continues its pretraining for as many steps as the fusions are fine-tuned, since it would be trained for fewer
steps otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from contracts.network import FUSIONS, Fusion
from contracts.stages import PRETRAINING_SEEDS, joint_start
from ml_backend.detector.config import PARTS, DetectorConfig
from ml_backend.detector.dataset import DatasetSpec
from ml_backend.detector.errors import ConfigError

RECIPES = ("staged", "joint")
Kind = Literal["pretrain", "single", "staged", "joint"]


@dataclass(frozen=True)
class ComparisonConfig:
    """What is compared.

    Attributes:
        base: settings that all trainings share; ``iterations`` are those of fine-tuning. Its ``fusion`` and ``seed``
            are replaced.
        pretrain_iterations: steps of unimodal pretraining; joint training takes these and ``base.iterations``.
        fusions: strategies, each a row; names in :data:`contracts.network.FUSIONS`.
        recipes: ``staged``, ``joint`` or both.
        joint_fusions: strategies that are also trained from scratch; empty means the default strategy, or the first
            given.
        anchors: modalities that the others are added to; every strategy is trained with each. Empty means the base's.
        seeds: each training is repeated with each.
        split: what AP is measured on.
    """

    base: DetectorConfig = field(default_factory=DetectorConfig)
    pretrain_iterations: int = 150
    fusions: tuple[Fusion, ...] = FUSIONS
    recipes: tuple[str, ...] = RECIPES
    joint_fusions: tuple[Fusion, ...] = ()
    anchors: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    split: str = "test"

    def __post_init__(self) -> None:
        _choose("fusions", self.fusions, FUSIONS)
        _choose("recipes", self.recipes, RECIPES)
        _choose("joint_fusions", self.joint_fusions, self.fusions, may_be_empty=True)
        _choose("anchors", self.anchors, may_be_empty=True)
        _choose("seeds", self.seeds)
        if self.pretrain_iterations < 1:
            raise ConfigError(f"pretrain_iterations = {self.pretrain_iterations} makes no sense: give at least 1.")

    @property
    def total_iterations(self) -> int:
        """Number of steps that every weight of a compared detector is trained for."""
        return self.pretrain_iterations + self.base.iterations

    def identity(self) -> dict[str, Any]:
        """The settings that all trainings in a folder must share: all but the choice of rows and seeds."""
        base = {key: value for key, value in self.base.to_json().items() if key not in ("fusion", "seed")}
        return {"base": base, "pretrain_iterations": self.pretrain_iterations, "split": self.split}


@dataclass(frozen=True)
class Run:
    """One training of the comparison.

    Attributes:
        name: of its folder.
        row: the row of the table it belongs to, the same for all seeds.
        kind: ``pretrain``, ``single`` (one modality alone), ``staged`` or ``joint``.
        seed: the repetition it belongs to.
        config: what is trained.
        init: by modality, the name of the run whose checkpoint it starts from.
    """

    name: str
    row: str
    kind: Kind
    seed: int
    config: DetectorConfig
    init: Mapping[str, str] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        """Expected duration, in steps of one modality; used to estimate the time left."""
        return self.config.iterations * len(self.config.modalities)


def plan_runs(asked: ComparisonConfig, dataset: DatasetSpec) -> list[Run]:
    """All trainings of a comparison; those that others start from come first.

    Raises:
        ConfigError: the dataset has fewer than two modalities to compare, or lacks one that is asked for.
    """
    base = asked.base.resolve(dataset)
    if len(base.modalities) < 2:
        raise ConfigError(
            f"Comparing needs at least two modalities, but {dataset.file} offers "
            f"{', '.join(base.modalities)}: add one, or use 'train'."
        )
    _choose("anchors", asked.anchors, base.modalities, may_be_empty=True)
    return [run for seed in asked.seeds for run in _runs_of(asked, replace(base, seed=seed))]


def _runs_of(asked: ComparisonConfig, base: DetectorConfig) -> list[Run]:
    """The trainings of one seed."""

    staged, seed = "staged" in asked.recipes, base.seed
    pretrained = {name: f"pretrain-{name}-seed{seed}" for name in base.modalities} if staged else {}
    runs: list[Run] = []
    for name in pretrained:
        config = _alone(_all_learn(base), name)
        config = replace(config, iterations=asked.pretrain_iterations, seed=seed + PRETRAINING_SEEDS)
        runs.append(Run(pretrained[name], f"{name}, pretraining", "pretrain", seed, config))
    for name in base.modalities:
        config = _alone(base, name)
        if not staged:
            config = replace(_all_learn(config), iterations=asked.total_iterations)
        init = {name: pretrained[name]} if staged else {}
        runs.append(Run(f"single-{name}-seed{seed}", f"{name} alone", "single", seed, config, init))
    anchors = asked.anchors or (base.anchor,)
    for anchor in anchors:
        run = "" if anchor == base.anchor else f"-on-{anchor}"
        row = f" on {anchor}" if len(anchors) > 1 else ""
        for fusion in asked.fusions if staged else ():
            init = joint_start(pretrained, fusion=fusion, anchor=anchor)
            config = replace(base, fusion=fusion, anchor=anchor)
            runs.append(Run(f"staged-{fusion}{run}-seed{seed}", f"{fusion}{row}, staged", "staged", seed, config, init))
        for fusion in _joint_fusions(asked):
            config = replace(_all_learn(base), fusion=fusion, anchor=anchor, iterations=asked.total_iterations)
            runs.append(Run(f"joint-{fusion}{run}-seed{seed}", f"{fusion}{row}, joint", "joint", seed, config))
    return runs


def _alone(base: DetectorConfig, modality: str) -> DetectorConfig:
    own = (*PARTS, modality)
    return replace(
        base,
        modalities=(modality,),
        anchor=modality,
        freeze=tuple(part for part in base.freeze if part in own),
        slow=tuple((part, factor) for part, factor in base.slow if part in own),
    )


def _all_learn(config: DetectorConfig) -> DetectorConfig:
    """Without frozen or slowed parts: those settings are for fine-tuning pretrained weights."""
    return replace(config, freeze=(), slow=())


def _joint_fusions(asked: ComparisonConfig) -> tuple[Fusion, ...]:
    if "joint" not in asked.recipes:
        return ()
    if asked.joint_fusions:
        return asked.joint_fusions
    if "staged" not in asked.recipes:
        return asked.fusions
    default = DetectorConfig().fusion
    return (default if default in asked.fusions else asked.fusions[0],)


def _choose(
    key: str, given: tuple[Any, ...], known: tuple[str, ...] | None = None, *, may_be_empty: bool = False
) -> None:
    if len(set(given)) != len(given) or not (given or may_be_empty):
        raise ConfigError(f"The comparison's {key} are {given!r}: name at least one, each once.")
    for name in given if known is not None else ():
        if name not in (known or ()):
            raise ConfigError(f"The comparison's {key} name '{name}': choose among {', '.join(known or ())}.")
