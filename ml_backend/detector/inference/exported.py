"""Detectors whose parts with weights are ONNX graphs, run by ONNX Runtime on the CPU.

A folder written by ``export`` holds one graph per part of the detector, and the checkpoint's card with an entry
``export``. The parts without weights (anchors, box decoding, NMS, RoIAlign, pasting of masks) remain mmdet's: the same
model is built, and the ``forward`` of its other parts runs their graphs. So the same :class:`Detector` is used, and
such a folder is accepted wherever a checkpoint is. The graphs take any number of tiles of the one size they were made
for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml_backend.detector.checkpoint import Checkpoint
from ml_backend.detector.errors import CheckpointError, DeviceError
from ml_backend.detector.inference.detector import Detector
from ml_backend.detector.model.build import CASCADE, STRIDES, model_config
from ml_backend.detector.model.openmmlab import MODELS, ConfigDict

STAGES = range(len(CASCADE))
PARTS = (
    "backbone",
    "neck",
    "rpn_head",
    *(f"roi_head.bbox_head.{stage}" for stage in STAGES),
    *(f"roi_head.mask_head.{stage}" for stage in STAGES),
)


def graph_file(part: str) -> str:
    """The file of a part's graph, within the folder."""
    return f"{part}.onnx"


def load_exported(opened: Checkpoint, device: str) -> Detector:
    """Load a folder that ``export`` wrote.

    Raises:
        CheckpointError: a graph is missing or altered, or ONNX Runtime is not installed.
        DeviceError: another device than the CPU is requested.
    """
    if device not in ("auto", "cpu"):
        raise DeviceError(f"{opened.path} is exported for the CPU: use --device cpu, or the checkpoint it came from.")
    model: Any = MODELS.build(ConfigDict(model_config(opened.config, opened.modalities, len(opened.classes))))
    for part in PARTS:
        module = model.get_submodule(part)
        module.to("meta")  # its weights are in the graph
        module.forward = _forward(part, Graph(opened.path / graph_file(part), opened))
    height, width = opened.card["export"]["tile"]
    model.eval()
    cpu = torch.device("cpu")
    return Detector(
        model,
        opened.config,
        opened.classes,
        opened.modalities,
        cpu,
        (height, width),
        opened.calibration,
        opened.reduction,
    )


class Graph:
    """An ONNX graph: tensors in, tensors out; only the first axis may vary."""

    def __init__(self, file: Path, opened: Checkpoint) -> None:
        """Open the graph of a card.

        Raises:
            CheckpointError: the file is missing or altered, or ONNX Runtime is not installed.
        """
        try:
            import onnxruntime
        except ImportError:
            raise CheckpointError(
                f"{opened.path} is exported for ONNX Runtime, which is not installed: pip install onnxruntime."
            ) from None
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing: copy the whole folder again.") from None
        if hashlib.sha256(data).hexdigest() != opened.card["export"]["graphs"].get(file.name):
            raise CheckpointError(f"{file} is truncated or altered (its checksum is not the card's): copy it again.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only: messages on failed optimisations do not matter
        # spinning threads would take cores from torch
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._inputs = self._session.get_inputs()
        self._source, self._tile = opened.path, opened.card["export"]["tile"]

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """Run it.

        Raises:
            CheckpointError: the tensors are of another size than the graph was made for.
        """
        for tensor, declared in zip(tensors, self._inputs, strict=True):
            if list(tensor.shape[1:]) != declared.shape[1:]:
                height, width = self._tile
                raise CheckpointError(
                    f"{self._source} takes tiles of {width} x {height} pixels only: give such tiles, or larger ones "
                    "to be cut into windows, or export with another --size."
                )
        if not len(tensors[0]):
            return [tensors[0].new_zeros(0, *output.shape[1:]) for output in self._session.get_outputs()]
        arrays = {
            declared.name: np.ascontiguousarray(tensor.numpy())
            for tensor, declared in zip(tensors, self._inputs, strict=True)
        }
        return [torch.from_numpy(array) for array in self._session.run(None, arrays)]


def _forward(part: str, graph: Graph) -> Callable[..., Any]:
    """Replacement for ``forward`` of a part, with the same arguments and structure of results."""
    if part == "rpn_head":
        levels = len(STRIDES)

        def scores_and_deltas(pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            maps = graph(*pyramid)
            return maps[:levels], maps[levels:]

        return scores_and_deltas
    if part == "neck":
        return lambda maps: tuple(graph(*maps))
    if part.startswith("roi_head.mask_head"):
        return lambda crops: graph(crops)[0]
    return lambda inputs: tuple(graph(inputs))


def flattened(module: nn.Module) -> nn.Module:
    """The module with flat tuples of tensors as arguments and results, as in a graph."""
    return _Flat(module)


class _Flat(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        result = self.module(tensors if len(tensors) > 1 else tensors[0])
        return tuple(flat(result))


def flat(result: Any) -> list[Tensor]:
    """The tensors in nested tuples and lists, in order."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]
