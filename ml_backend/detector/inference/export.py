"""Exporting a checkpoint for serving on CPUs: ONNX graphs, written only when they compute what the checkpoint does."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml_backend.detector.checkpoint import CARD, Checkpoint, open_checkpoint, replace_file
from ml_backend.detector.chips import ChipInput
from ml_backend.detector.errors import CheckpointError, ConfigError, ExportError
from ml_backend.detector.inference.detector import Detector
from ml_backend.detector.inference.exported import PARTS, flat, flattened, graph_file
from ml_backend.detector.inference.loading import load
from ml_backend.detector.inference.results import Detection
from ml_backend.detector.masks import FloatArray, rings_mask

Progress = Callable[[float, str], None]
# Float32 sums in another order differ by some 1e-6 of the largest value; a wrong graph differs by far more.
MAX_DIFFERENCE = 1e-3
# Scores that lie next to a threshold may fall on its other side; nothing else may change.
MIN_AGREEMENT = 0.98
SAME_IOU, SAME_SCORE = 0.95, 0.01


@dataclass(frozen=True)
class Parity:
    """How far the exported detector is from the checkpoint.

    Attributes:
        differences: per part the largest absolute difference of its results, relative to their largest value (or 1).
        agreement: share of detections that both give: mask IoU of at least .95 and scores within .01.
        detections: how many were compared.
        tiles: on how many tiles; ``source`` says which.
    """

    differences: dict[str, float]
    agreement: float
    detections: int
    tiles: int
    source: str


def export(
    checkpoint: Path | str,
    out: Path | str,
    *,
    size: tuple[int, int] | None = None,
    chips: Sequence[ChipInput] = (),
    progress: Progress | None = None,
) -> Parity:
    """Write a checkpoint as ONNX graphs that :func:`load` takes.

    Args:
        checkpoint: folder of the checkpoint.
        out: folder to write; it must not exist.
        size: (height, width) of the tiles that will be predicted; None takes that of the chips or the training.
        chips: tiles of that size to compare on; without any, generated ones.
        progress: told the share done and what comes next.

    Returns:
        How well both agree; also written into the card.

    Raises:
        CheckpointError: the checkpoint is damaged or already exported.
        ExportError: ``out`` exists, ONNX is not installed, or the graphs do not compute what the checkpoint does.
    """
    opened, folder, say = open_checkpoint(checkpoint), Path(out), progress or (lambda share, text: None)
    if "export" in opened.card:
        raise CheckpointError(f"{opened.path} is exported already: give the checkpoint it came from.")
    if folder.exists():
        raise ExportError(f"{folder} exists: give the name of a new folder.")
    detector = load(opened, "cpu")
    tile = size or (chips[0].arrays[next(iter(chips[0].arrays))].shape[-2:] if chips else detector.window)
    seen = list(chips) or _generated(detector, tile)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        draft = Path(temporary) / "export"
        draft.mkdir()
        examples = _examples(detector, seen[0], tile)
        for number, part in enumerate(PARTS):
            say(number / (len(PARTS) + 1), f"exporting {part}")
            _write_graph(detector.model.get_submodule(part), examples[part], draft / graph_file(part))
        card = {**opened.card, "export": _entry(draft, tile)}
        replace_file(draft / CARD, json.dumps(card, indent=2).encode())
        say(len(PARTS) / (len(PARTS) + 1), f"comparing on {len(seen)} tiles")
        source = "tiles of a dataset" if chips else "generated tiles"
        parity = _compare(detector, load(draft, "cpu"), examples, seen, source)
        card["export"]["parity"] = asdict(parity)
        replace_file(draft / CARD, json.dumps(card, indent=2).encode())
        _require(parity, folder)
        draft.rename(folder)
    say(1.0, f"done: {folder}")
    return parity


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


def _generated(detector: Detector, tile: tuple[int, int], count: int = 4) -> list[ChipInput]:
    """Tiles of blurred noise around the training's mean; the last lacks all modalities but the first."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    chips = []
    for number in range(count):
        arrays: dict[str, FloatArray] = {}
        for modality in detector.modalities[: 1 if number == count - 1 else None]:
            noise = gaussian_filter(rng.standard_normal((len(modality.bands), *tile)), (0, 4, 4))
            scale, shift = np.array(modality.std)[:, None, None], np.array(modality.mean)[:, None, None]
            arrays[modality.name] = (noise / noise.std() * scale + shift).astype(np.float32)
        chips.append(ChipInput(arrays, {}))
    return chips


def _examples(detector: Detector, chip: ChipInput, tile: tuple[int, int]) -> dict[str, tuple[Tensor, ...]]:
    """What each part gets when the detector predicts two tiles, caught by hooks.

    Raises:
        ConfigError: the chip is of another size.
    """
    height, width = chip.arrays[next(iter(chip.arrays))].shape[-2:]
    if (height, width) != tile:
        raise ConfigError(
            f"The tiles to compare on are {width} x {height} pixels, but the export is for {tile[1]} x {tile[0]}: "
            "give another --size or another dataset."
        )
    caught: dict[str, tuple[Tensor, ...]] = {}
    hooks = []
    for part in PARTS:

        def catch(module: nn.Module, inputs: tuple[Any, ...], part: str = part) -> None:
            caught[part] = tuple(tensor.clone() for tensor in flat(inputs[0]))

        hooks.append(detector.model.get_submodule(part).register_forward_pre_hook(catch))
    everything = {"score_threshold": 0.0, "min_pixels": 0}
    model: Any = detector.model
    threshold, model.roi_head.test_cfg.score_thr = model.roi_head.test_cfg.score_thr, 0.0  # so that masks are made
    try:
        detector.predict([chip, chip], window=max(32, *tile), **everything)  # type: ignore[arg-type]
    finally:
        model.roi_head.test_cfg.score_thr = threshold
        for hook in hooks:
            hook.remove()
    return caught


def _write_graph(module: nn.Module, example: tuple[Tensor, ...], file: Path) -> None:
    """Export one part; the first axis of all its tensors may vary.

    Raises:
        ExportError: torch's exporter is not installed, or cannot express the part.
    """
    count = torch.export.Dim("count", min=1, max=2**20)
    inputs = tuple(tensor.detach().clone() for tensor in example)
    try:
        with redirect_stdout(StringIO()):  # the exporter narrates
            program = torch.onnx.export(
                flattened(module).eval(),
                (inputs,),
                dynamo=True,
                dynamic_shapes=(tuple({0: count} for _ in inputs),),
                verbose=False,
            )
    except ImportError as error:
        raise ExportError(
            f"Exporting needs packages that are missing ({error}): pip install onnx onnxscript."
        ) from None
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"{file.stem} cannot be written as ONNX ({str(error).splitlines()[0]}).") from error
    assert program is not None
    program.save(str(file))


def _compare(
    detector: Detector,
    exported: Detector,
    examples: dict[str, tuple[Tensor, ...]],
    chips: Sequence[ChipInput],
    source: str,
) -> Parity:
    differences = {}
    with torch.inference_mode():
        for part in PARTS:
            given = examples[part]
            pairs = [
                (flat(d.model.get_submodule(part)(given if len(given) > 1 else given[0]))) for d in (detector, exported)
            ]
            differences[part] = max(
                float((one - other).abs().max() / one.abs().max().clamp(min=1))
                for one, other in zip(*pairs, strict=True)
            )
    agreed = compared = 0
    side = max(32, *detector_tile(exported))
    for chip in chips:
        (one,), (other,) = (d.predict([chip], window=side) for d in (detector, exported))
        same = matching(one.detections, other.detections, detector_tile(exported))
        agreed += same
        compared += max(len(one.detections), len(other.detections))
    return Parity(differences, agreed / compared if compared else 1.0, compared, len(chips), source)


def detector_tile(exported: Detector) -> tuple[int, int]:
    """(height, width) of the tiles that an exported detector takes."""
    return exported.window


def matching(one: Sequence[Detection], other: Sequence[Detection], size: tuple[int, int]) -> int:
    """How many detections of one list have their like in the other: class, score and mask."""
    masks = [rings_mask(detection.rings, *size) for detection in other]
    free, count = set(range(len(other))), 0
    for detection in one:
        mask = rings_mask(detection.rings, *size)
        for index in sorted(free):
            like = other[index]
            if like.class_name != detection.class_name or abs(like.score - detection.score) > SAME_SCORE:
                continue
            common, either = np.count_nonzero(mask & masks[index]), np.count_nonzero(mask | masks[index])
            if common >= SAME_IOU * either:
                free.remove(index)
                count += 1
                break
    return count


def _require(parity: Parity, folder: Path) -> None:
    part, worst = max(parity.differences.items(), key=lambda entry: entry[1])
    if worst > MAX_DIFFERENCE:
        raise ExportError(
            f"{folder} is not written: the exported {part} differs from the checkpoint's by {worst:.1e} (relative to "
            f"its largest value; at most {MAX_DIFFERENCE:g} is accepted): serve the checkpoint itself and report this."
        )
    if parity.agreement < MIN_AGREEMENT:
        raise ExportError(
            f"{folder} is not written: only {parity.agreement:.1%} of {parity.detections} detections are those of the "
            f"checkpoint (at least {MIN_AGREEMENT:.0%} is accepted): serve the checkpoint itself and report this."
        )
