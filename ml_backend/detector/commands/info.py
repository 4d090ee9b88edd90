"""``info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_backend.detector.checkpoint import inspect
from ml_backend.detector.commands.options import Arguments, add_command, metrics_text


def add(commands: Any) -> None:
    """Declare the command."""
    told = add_command(commands, "info", _info, "Show what a checkpoint is, without loading its weights.")
    told.add_argument("checkpoint", type=Path, help="checkpoint folder")
    told.add_argument("--json", action="store_true", help="the whole card as JSON")


def _info(arguments: Arguments) -> None:
    card = inspect(arguments.checkpoint)
    if arguments.json:
        print(json.dumps(card, indent=2))
        return
    config = card["config"]
    print(f"size        {config['size']}, {card['weights']['parameters'] / 1e6:.1f} M parameters")
    print(f"classes     {', '.join(card['classes'])}")
    for modality in card["modalities"]:
        anchor = " (anchor)" if modality["name"] == config["anchor"] else ""
        print(f"modality    {modality['name']}{anchor}: {', '.join(modality['bands'])}")
    print(f"fusion      {config['fusion'] if len(card['modalities']) > 1 else 'none'}")
    print(f"dataset     {card['dataset']['name']} {card['dataset']['version']}")
    print(f"trained     {card['iterations']} steps, seed {config['seed']}, {card['created']}")
    print(f"val         {metrics_text(card['metrics']) if card['metrics'] else 'not measured'}")
