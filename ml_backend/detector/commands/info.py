"""``info``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_backend.detector.checkpoint import Checkpoint, open_checkpoint
from ml_backend.detector.commands.options import Arguments, add_command, metrics_text


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "info", _info, "Show the card of a checkpoint, without loading its weights.")
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--json", action="store_true", help="the whole card as JSON")


def _info(arguments: Arguments) -> None:
    opened = open_checkpoint(arguments.checkpoint)
    print(json.dumps(opened.card, indent=2) if arguments.json else "\n".join(_lines(opened)))


def _lines(opened: Checkpoint) -> Iterator[str]:
    """The main entries of a card, one per line; older cards lack some."""
    card, config = opened.card, opened.config
    parameters = card["weights"].get("parameters")
    count = f", {parameters / 1e6:.1f} M parameters" if isinstance(parameters, int) else ""
    yield f"size        {config.size}{count}"
    yield f"classes     {', '.join(opened.classes)}"
    for modality in opened.modalities:
        anchor = " (anchor)" if modality.name == config.anchor else ""
        yield f"modality    {modality.name}{anchor}: {', '.join(modality.bands)}"
    yield f"fusion      {config.fusion if len(opened.modalities) > 1 else 'none'}"
    yield f"network     version {card.get('architecture', 1)}"
    dataset = card.get("dataset")
    version = [str(dataset.get(key, "")) for key in ("name", "version")] if isinstance(dataset, dict) else ["unknown"]
    yield f"dataset     {' '.join(version)}"
    yield f"trained     {card.get('iterations', '?')} steps, seed {config.seed}, {card.get('created', 'undated')}"
    if pretrained := (card.get("init") or {}).get("pretrained"):
        yield f"started     {_started(pretrained)}"
    metrics = card.get("metrics")
    yield f"val         {metrics_text(metrics) if metrics else 'not measured'}"


def _started(pretrained: dict[str, Any]) -> str:
    """Which published weights were used, and which were not."""
    fresh = ", ".join(f"{part} {count}" for part, count in pretrained["fresh"].items())
    unused, layout = pretrained["unused"], pretrained.get("layout", "unknown")
    names = ", ".join(unused[:3]) + (", ..." if len(unused) > 3 else "")
    return (
        f"from {pretrained['source']} (layout: {layout}): {pretrained['tensors']} tensors set"
        + (f"; newly initialised: {fresh}" if fresh else "")
        + (f"; unused tensors of the file: {len(unused)} ({names})" if unused else "")
    )
