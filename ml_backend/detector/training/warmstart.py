"""Starting from earlier models: one of the same architecture, or one for each modality, unimodal or multimodal.

The normalisation is taken over with the weights, which were trained on inputs scaled by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contracts.network import stacks_bands
from ml_backend.detector.checkpoint import Checkpoint, open_checkpoint
from ml_backend.detector.config import STACKED, DetectorConfig
from ml_backend.detector.dataset import DatasetSpec, ModalitySpec
from ml_backend.detector.errors import CheckpointError
from ml_backend.detector.inference import load_weights

Init = Checkpoint | Path | str | Mapping[str, Path | str] | None
FIRST_CONVOLUTION = "patch_embed.projection.weight"
BACKBONE = "backbone."
BRANCHES = "backbone.branches."
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class WarmStart:
    """Earlier models that a training starts from; without any, weights are newly initialised.

    Attributes:
        whole: a checkpoint of the same architecture.
        by_modality: checkpoints from which the modalities' backbones are taken.
    """

    whole: Checkpoint | None
    by_modality: Mapping[str, Checkpoint]

    @property
    def fusion_is_fresh(self) -> bool:
        """Whether the fusion is newly initialised while neck, heads and given backbones are pretrained."""
        return bool(self.by_modality)

    def normalise(self, modality: ModalitySpec) -> ModalitySpec:
        """The modality with the normalisation of the model that its backbone is taken from."""
        source = self.whole or self.by_modality.get(modality.name)
        if source is None:
            return modality
        earlier = {m.name: m for m in source.modalities}[modality.name]
        return replace(modality, mean=earlier.mean, std=earlier.std)

    def keep_out_of(self, folder: Path) -> None:
        """Check that no checkpoint to start from is in a folder that is about to be discarded.

        Raises:
            CheckpointError: one is.
        """
        for source in (self.whole, *self.by_modality.values()):
            if source and source.path.resolve().is_relative_to(folder.resolve()):
                raise CheckpointError(
                    f"{source.path} would be discarded before it is read, because {folder} is to be reset: give "
                    "another output folder."
                )

    def lineage(self) -> dict[str, Any]:
        """SHA-256 of the weights of each earlier model, for the card."""
        sources = {"all": self.whole} if self.whole else dict(self.by_modality)
        return {name: source.card["weights"]["sha256"] for name, source in sources.items() if source}

    def apply(self, model: nn.Module, config: DetectorConfig, modalities: Sequence[ModalitySpec]) -> None:
        """Load the earlier weights into a new model with these modalities."""
        if self.whole:
            load_weights(model, self.whole.weights(), self.whole.path)
        if self.by_modality:
            weights = self._assemble(model.state_dict(), config, {m.name: len(m.bands) for m in modalities})
            load_weights(model, weights, self.by_modality[config.anchor].path)

    def _assemble(self, fresh: Weights, config: DetectorConfig, bands: Mapping[str, int]) -> Weights:
        """Weights with backbones from each modality's model, neck and heads from the anchor's, and the new fusion."""
        anchor = self.by_modality[config.anchor].weights()
        weights = {**fresh, **{key: value for key, value in anchor.items() if not key.startswith(BACKBONE)}}
        stacked = f"{BRANCHES}{STACKED}."
        own = f"{BRANCHES}{config.anchor}."
        if any(key.startswith(stacked) for key in fresh):
            weights.update({key.replace(own, stacked): value for key, value in anchor.items() if key.startswith(own)})
            before = sum(bands[name] for name in config.modalities[: config.modalities.index(config.anchor)])
            first = stacked + FIRST_CONVOLUTION
            weights[first] = _widen(anchor[own + FIRST_CONVOLUTION], fresh[first], before)
            return weights
        for name, source in self.by_modality.items():
            branch = f"{BRANCHES}{name}."
            weights.update({key: value for key, value in source.weights().items() if key.startswith(branch)})
        return weights


def _widen(kernel: torch.Tensor, fresh: torch.Tensor, before: int) -> torch.Tensor:
    """The weights of a first convolution for more input bands; those of the others are zero."""
    wide = torch.zeros_like(fresh)
    wide[:, before : before + kernel.shape[1]] = kernel
    return wide


def open_init(init: Init, config: DetectorConfig, dataset: DatasetSpec) -> WarmStart:
    """Open and check the models to start from.

    Args:
        init: nothing, a checkpoint of the same architecture, or ``{modality: checkpoint trained on it}``.
        config: resolved configuration.
        dataset: what will be trained on.

    Raises:
        CheckpointError: one cannot be read, is of another size or version of the network, or has other classes,
            modalities or bands.
    """
    if init is None:
        return WarmStart(None, {})
    if not isinstance(init, Mapping):
        whole = (init if isinstance(init, Checkpoint) else open_checkpoint(init)).require_same_network()
        _check_same_model(whole, config, dataset)
        return WarmStart(whole, {})
    sources = open_sources(init, config, dataset)
    if config.anchor not in sources:
        raise CheckpointError(
            f"Fine-tuning takes neck and heads from the anchor's model, but no checkpoint of '{config.anchor}' is "
            "given: pretrain it and give it too, or choose another anchor."
        )
    _check_none_is_forgotten(sources, config)
    return WarmStart(None, sources)


def open_sources(
    sources: Mapping[str, Path | str], config: DetectorConfig, dataset: DatasetSpec, *, any_anchor: bool = False
) -> dict[str, Checkpoint]:
    """Open and check the models that backbones are taken from; arguments and errors are those of :func:`open_init`.

    With ``any_anchor``, any of the modalities may become the anchor.
    """
    opened = {name: open_checkpoint(path).require_same_network() for name, path in sources.items()}
    for name, source in opened.items():
        _check_source(name, source, config, dataset)
        if stacks_bands(config.fusion) and name != config.anchor and not any_anchor:
            raise CheckpointError(
                f"{source.path} is given for '{name}', but the one backbone of fusion = '{config.fusion}' begins as "
                f"that of '{config.anchor}': leave it out."
            )
    return opened


def _check_none_is_forgotten(sources: Mapping[str, Checkpoint], config: DetectorConfig) -> None:
    """Check that no backbone is newly initialised whose weights are in a checkpoint given for another modality."""
    if stacks_bands(config.fusion):
        return
    for name in config.modalities:
        knows = next((source for source in sources.values() if name in source.config.modalities), None)
        if name not in sources and knows is not None:
            raise CheckpointError(
                f"{knows.path} knows '{name}', too, whose backbone would be newly initialised: give a checkpoint "
                f"for it as well (--from {name}={knows.path})."
            )


def _check_same_model(source: Checkpoint, config: DetectorConfig, dataset: DatasetSpec) -> None:
    earlier = source.config
    if set(earlier.modalities) != set(config.modalities):
        raise CheckpointError(
            f"{source.path} is a checkpoint for the modalities {', '.join(earlier.modalities)}, not "
            f"{', '.join(config.modalities)}: use one for the same, or start from one checkpoint per modality "
            "('finetune --from')."
        )
    for key in ("size", "fusion", "anchor", "modalities"):
        if key == "fusion" and len(config.modalities) == 1:
            continue
        if getattr(earlier, key) != getattr(config, key):
            raise CheckpointError(
                f"{source.path} was trained with {key} = {getattr(earlier, key)!r}, but {getattr(config, key)!r} is "
                f"asked for: train with the same {key} or start without this checkpoint."
            )
    _check_bands_and_classes(source, dataset, earlier.modalities)


def _check_source(name: str, source: Checkpoint, config: DetectorConfig, dataset: DatasetSpec) -> None:
    if name not in config.modalities:
        raise CheckpointError(
            f"{source.path} is given for modality '{name}', but the training uses {', '.join(config.modalities)}: "
            "leave it out or add the modality."
        )
    if name not in source.config.modalities:
        raise CheckpointError(
            f"{source.path} is a checkpoint for the modalities {', '.join(source.config.modalities)}, not for "
            f"'{name}': give one trained on '{name}'."
        )
    if stacks_bands(source.config.fusion) and len(source.config.modalities) > 1:
        raise CheckpointError(
            f"{source.path} has one backbone for all modalities (fusion = 'stack') and none for '{name}': give one "
            f"trained on '{name}' alone, or by another fusion."
        )
    if source.config.size != config.size:
        raise CheckpointError(
            f"{source.path} is of size '{source.config.size}', but '{config.size}' is asked for: use the same size."
        )
    _check_bands_and_classes(source, dataset, (name,))


def _check_bands_and_classes(source: Checkpoint, dataset: DatasetSpec, modalities: Sequence[str]) -> None:
    if source.classes != dataset.classes:
        raise CheckpointError(
            f"{source.path} knows the classes {', '.join(source.classes)}, but {dataset.file} "
            f"declares {', '.join(dataset.classes)}: use the same classes in the same order or start without it."
        )
    for modality in (m for m in source.modalities if m.name in modalities):
        if modality.bands != dataset.modality(modality.name).bands:
            raise CheckpointError(
                f"{source.path} takes the bands {', '.join(modality.bands)} of '{modality.name}', but the dataset has "
                f"{', '.join(dataset.modality(modality.name).bands)}: use a checkpoint for these bands."
            )
