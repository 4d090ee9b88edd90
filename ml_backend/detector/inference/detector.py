"""A detector in memory: tiles in, instances with outlines and uncertainty out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ml_backend.detector.calibration import Calibration
from ml_backend.detector.checkpoint import Checkpoint, open_checkpoint
from ml_backend.detector.chips import ChipInput, network_input
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.data.samples import image_meta
from ml_backend.detector.dataset import ModalitySpec
from ml_backend.detector.devices import choose_device
from ml_backend.detector.errors import CheckpointError, DeviceError
from ml_backend.detector.masks import FloatArray, mask_rings
from ml_backend.detector.model.build import build_model
from ml_backend.detector.model.openmmlab import DetDataSample


@dataclass(frozen=True)
class Detection:
    """One instance on a tile.

    Attributes:
        rings: closed rings float32 [N, 2] (x right, y down) in pixel corners, so the tile is [0, W] x [0, H]; the first
            is the exterior, the rest are holes.
        class_name: one of the checkpoint's classes.
        score: 0..1, from the cascade's averaged logits.
        stage_scores: each stage's own score of that class.
        stage_boxes: float32 [3, 4], each stage's box, xyxy in tile pixels.
        mask_entropy: mean binary entropy of the mask probabilities in the box, 0 (sure) to 1.
        class_entropy: entropy of the class distribution over its maximum, 0 (sure) to 1.
        probability: chance that it is right at IoU .5, from the score and the temperature fitted on validation; None
            when the checkpoint has none.
    """

    rings: list[FloatArray]
    class_name: str
    score: float
    stage_scores: tuple[float, ...]
    stage_boxes: FloatArray
    mask_entropy: float
    class_entropy: float
    probability: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "rings": [ring.tolist() for ring in self.rings],
            "class_name": self.class_name,
            "score": self.score,
            "stage_scores": list(self.stage_scores),
            "stage_boxes": self.stage_boxes.tolist(),
            "mask_entropy": self.mask_entropy,
            "class_entropy": self.class_entropy,
            "probability": self.probability,
        }


@dataclass(frozen=True)
class TileResult:
    """What the detector says about one tile.

    Attributes:
        detections: best first.
        embedding: float32 [D], mean of the deepest fused features over pixels where any modality is valid.
        seconds: its share of the batch's time.
    """

    detections: tuple[Detection, ...]
    embedding: FloatArray
    seconds: float


class Detector:
    """A model ready to predict; keeps its weights on the device."""

    def __init__(
        self,
        model: nn.Module,
        config: DetectorConfig,
        classes: Sequence[str],
        modalities: Sequence[ModalitySpec],
        device: torch.device,
        calibration: Calibration = Calibration(),  # noqa: B008  (immutable)
    ) -> None:
        self.model = model
        self.calibration = calibration
        self.config = config
        self.classes = tuple(classes)
        self.modalities = tuple(modalities)
        self.device = device

    def predict(
        self,
        chips: Sequence[ChipInput],
        *,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        tolerance: float = 0.5,
        min_pixels: int = 10,
        batch_size: int = 8,
    ) -> list[TileResult]:
        """Predict tiles.

        Args:
            chips: tiles of any size; those of equal size go through the network together.
            score_threshold: instances below are left out (the network itself drops those below 0.05).
            max_detections: at most this many instances per tile (the network itself keeps 100).
            tolerance: outlines may be simplified by this many pixels.
            min_pixels: instances of fewer pixels are left out.
            batch_size: tiles per forward pass.

        Returns:
            One result per chip, in order.

        Raises:
            DatasetError: a chip has none of the model's modalities or contradictory shapes.
            DeviceError: the GPU's memory does not suffice.
        """
        prepared = [network_input(chip, self.modalities, self.config.image_size) for chip in chips]
        results: dict[int, TileResult] = {}
        was_training = self.model.training
        self.model.eval()
        try:
            for batch in _equal_sizes(prepared, batch_size):
                started = time.perf_counter()
                instances, embeddings = self._forward([prepared[i] for i in batch])
                outlined = [
                    self._detections(found, score_threshold, max_detections, tolerance, min_pixels)
                    for found in instances
                ]
                seconds = (time.perf_counter() - started) / len(batch)
                for i, detections, embedding in zip(batch, outlined, embeddings, strict=True):
                    results[i] = TileResult(detections, embedding, seconds)
        except torch.cuda.OutOfMemoryError:
            raise DeviceError(
                f"The GPU's memory does not hold {batch_size} tiles at once: predict with a smaller batch size."
            ) from None
        finally:
            self.model.train(was_training)
        return [results[i] for i in range(len(chips))]

    @torch.inference_mode()
    def _forward(self, prepared: Sequence[tuple[Tensor, tuple[int, int]]]) -> tuple[list[Any], FloatArray]:
        """Run the network on tiles of one size: instances per tile, embeddings [B, D]."""
        model: Any = self.model
        samples = [
            DetDataSample(metainfo=image_meta(own, (inputs.shape[1], inputs.shape[2]))) for inputs, own in prepared
        ]
        batch = model.data_preprocessor({"inputs": [inputs for inputs, _ in prepared], "data_samples": samples})
        fused = model.backbone(batch["inputs"])
        pyramid = model.neck(fused)
        proposals = model.rpn_head.predict(pyramid, batch["data_samples"], rescale=False)
        instances = model.roi_head.predict(pyramid, proposals, batch["data_samples"], rescale=True)
        covered = batch["inputs"][:, -len(self.modalities) :].amax(dim=1, keepdim=True)
        weight = F.adaptive_avg_pool2d(covered, fused[-1].shape[-2:])
        embeddings = (fused[-1] * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1e-6)
        array: FloatArray = embeddings.float().cpu().numpy()
        return [found.detach().cpu() for found in instances], array

    def _detections(
        self, found: Any, score_threshold: float, max_detections: int, tolerance: float, min_pixels: int
    ) -> tuple[Detection, ...]:
        """Outline the instances (best first already) of one tile."""
        detections: list[Detection] = []
        arrays = {key: found[key].numpy() for key in found.keys()}  # noqa: SIM118  (InstanceData iterates otherwise)
        for i in range(len(arrays["scores"])):
            if len(detections) == max_detections or arrays["scores"][i] < score_threshold:
                break
            if np.count_nonzero(arrays["masks"][i]) < min_pixels:
                continue
            detections.append(
                Detection(
                    rings=mask_rings(arrays["masks"][i].astype(bool), tolerance),
                    class_name=self.classes[int(arrays["labels"][i])],
                    score=float(arrays["scores"][i]),
                    stage_scores=tuple(arrays["stage_scores"][i].tolist()),
                    stage_boxes=arrays["stage_boxes"][i].astype(np.float32),
                    mask_entropy=float(arrays["mask_entropy"][i]),
                    class_entropy=float(arrays["class_entropy"][i]),
                    probability=self.calibration.probability(float(arrays["scores"][i])),
                )
            )
        return tuple(detections)


def _equal_sizes(prepared: Sequence[tuple[Tensor, tuple[int, int]]], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of equal size: a tile's result must not depend on padding towards its neighbours'."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, (inputs, own) in enumerate(prepared):
        by_size.setdefault((*inputs.shape, *own), []).append(index)
    for indices in by_size.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def load(checkpoint: Checkpoint | Path | str, device: str = "auto") -> Detector:
    """Load a checkpoint and keep it in memory.

    Raises:
        CheckpointError: it is missing, damaged, or its weights do not fit its card.
        DeviceError: the device does not exist.
    """
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    target = choose_device(device)
    model = build_model(opened.config, opened.modalities, len(opened.classes))
    load_weights(model, opened.weights(), opened.path)
    model.to(target).eval()
    calibration = Calibration.from_metrics(opened.card.get("metrics") or {})
    return Detector(model, opened.config, opened.classes, opened.modalities, target, calibration)


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Put weights into a model of the same architecture.

    Raises:
        CheckpointError: names or shapes differ.
    """
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(weights)) or sorted(n for n in own if own[n].shape != weights[n].shape)
    if wrong:
        raise CheckpointError(
            f"{source} does not fit the model it describes ({len(wrong)} tensors differ, first '{wrong[0]}'): "
            "use the version of ThawLoop that wrote it, or train again."
        )
    model.load_state_dict(weights)
