"""Exporting a checkpoint as ONNX graphs for CPUs, after checking that their results are the checkpoint's."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contracts.checkpoint import CARD_FILE
from ml_backend.detector.checkpoint import open_checkpoint, replace_file
from ml_backend.detector.chips import ChipInput, chip_size, network_input
from ml_backend.detector.errors import CheckpointError, ConfigError, ExportError
from ml_backend.detector.inference.detector import Detector
from ml_backend.detector.inference.exported import PARTS, STAGES, flattened, graph_file
from ml_backend.detector.inference.loading import load
from ml_backend.detector.inference.parity import Parity, compare
from ml_backend.detector.masks import FloatArray
from ml_backend.detector.model.openmmlab import bbox2roi
from ml_backend.detector.progress import Progress, silent

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def export(
    checkpoint: Path | str,
    out: Path | str,
    *,
    size: tuple[int, int] | None = None,
    chips: Sequence[ChipInput] = (),
    progress: Progress | None = None,
) -> Parity:
    """Write a checkpoint as ONNX graphs that :func:`load` accepts.

    Args:
        checkpoint: folder of the checkpoint.
        out: folder to write; it must not exist.
        size: (height, width) of the tiles that will be predicted; None takes that of the chips or of the training.
        chips: tiles of that size to compare on; by default generated ones.
        progress: called with the share done (0..1) and the next step.

    Returns:
        The agreement of both, which is also written into the card.

    Raises:
        CheckpointError: the checkpoint is damaged or already exported.
        ExportError: ``out`` exists, ONNX is not installed, or the results of the graphs differ from the checkpoint's.
    """
    opened, folder, report = open_checkpoint(checkpoint), Path(out), progress or silent
    if "export" in opened.card:
        raise CheckpointError(f"{opened.path} is exported already: give the checkpoint it came from.")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ExportError(f"Exporting needs {', '.join(missing)}: pip install {' '.join(missing)}.")
    if folder.exists():
        raise ExportError(f"{folder} exists: give the name of a new folder.")
    detector = load(opened, "cpu")
    detector.window = size or (chip_size(chips[0], detector.modalities) if chips else detector.window)
    compared = list(chips) or _generated(detector, detector.window)
    _check_sizes(compared, detector)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        draft = Path(temporary) / "export"
        draft.mkdir()
        examples = _examples(detector, compared)
        for number, part in enumerate(PARTS):
            report(number / (len(PARTS) + 1), f"exporting {part}")
            _write_graph(detector.model.get_submodule(part), examples[part], draft / graph_file(part))
        card = {**opened.card, "export": _entry(draft, detector.window)}
        replace_file(draft / CARD_FILE, json.dumps(card, indent=2).encode())
        report(len(PARTS) / (len(PARTS) + 1), f"comparing on {len(compared)} tiles")
        source = "tiles of a dataset" if chips else "generated tiles"
        parity = compare(detector, load(draft, "cpu"), examples, compared, source)
        parity.require()
        card["export"]["parity"] = asdict(parity)
        replace_file(draft / CARD_FILE, json.dumps(card, indent=2).encode())
        draft.rename(folder)
    report(1.0, f"done: {folder}")
    return parity


def _check_sizes(chips: Sequence[ChipInput], detector: Detector) -> None:
    for chip in chips:
        height, width = chip_size(chip, detector.modalities)
        if (height, width) != detector.window:
            raise ConfigError(
                f"A tile to compare on has {width} x {height} pixels, but the export is for {detector.window[1]} x "
                f"{detector.window[0]}: give another --size or another dataset."
            )


def _entry(draft: Path, tile: tuple[int, int]) -> dict[str, Any]:
    files = [draft / graph_file(part) for part in PARTS]
    return {
        "format": "onnx",
        "tile": list(tile),
        "graphs": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "torch": torch.__version__,
        "onnx": importlib.metadata.version("onnx"),
        "onnxruntime": importlib.metadata.version("onnxruntime"),
    }


def _generated(detector: Detector, tile: tuple[int, int]) -> list[ChipInput]:
    """Four tiles of blurred noise around the training's mean: complete, with a hole, without the first of several
    modalities, and with only the first.
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    chips = []
    for number in range(4):
        arrays: dict[str, FloatArray] = {}
        several = len(detector.modalities) > 1
        there = {2: slice(int(several), None), 3: slice(1)}.get(number, slice(None))
        for modality in detector.modalities[there]:
            noise = gaussian_filter(rng.standard_normal((len(modality.bands), *tile)), (0, 4, 4))
            scale, shift = np.array(modality.std)[:, None, None], np.array(modality.mean)[:, None, None]
            arrays[modality.name] = (noise / noise.std() * scale + shift).astype(np.float32)
        hole = np.ones(tile, dtype=bool)
        hole[tile[0] // 4 : tile[0] // 2, : tile[1] // 3] = number != 1
        chips.append(ChipInput(arrays, dict.fromkeys(arrays, hole)))
    return chips


@torch.inference_mode()
def _examples(detector: Detector, chips: Sequence[ChipInput]) -> dict[str, tuple[Tensor, ...]]:
    """Example inputs of each part, for two tiles (with one tile, the batch size would be exported as a constant)."""
    model: Any = detector.model
    inputs = [network_input(chip, detector.modalities, detector.reduction)[0] for chip in (chips[0], chips[-1])]
    batch = model.data_preprocessor({"inputs": inputs})["inputs"]
    maps = model.backbone(batch)
    pyramid = model.neck(maps)
    height, width = inputs[0].shape[1:]
    corners = torch.tensor([[x, y] for x in (0.1, 0.3) for y in (0.1, 0.4)]) * torch.tensor([width, height])
    rois = bbox2roi([torch.cat([corners, corners * 2], dim=1)] * 2)
    head = model.roi_head
    examples = {"backbone": (batch,), "neck": tuple(maps), "rpn_head": tuple(pyramid)}
    for stage in STAGES:
        for kind, extractors in (("bbox", head.bbox_roi_extractor), ("mask", head.mask_roi_extractor)):
            extractor = extractors[stage]
            examples[f"roi_head.{kind}_head.{stage}"] = (extractor(pyramid[: extractor.num_inputs], rois),)
    return examples


def _write_graph(module: nn.Module, example: tuple[Tensor, ...], file: Path) -> None:
    """Export one part; the first axis of all its tensors may vary.

    Raises:
        ExportError: torch's exporter cannot express the part.
    """
    count = torch.export.Dim("count", min=1, max=2**20)
    inputs = tuple(tensor.detach().clone() for tensor in example)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():  # the exporter prints its progress
            warnings.simplefilter("ignore", UserWarning)
            program = torch.onnx.export(
                flattened(module).eval(),
                (inputs,),
                dynamo=True,
                optimize=False,  # ONNX Runtime optimises when it loads the graph, and faster
                dynamic_shapes=(tuple({0: count} for _ in inputs),),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"{file.stem} cannot be written as ONNX ({str(error).splitlines()[0]}).") from error
    assert program is not None
    program.save(str(file))
