"""Changing the files of a dataset or checkpoint, as people and disks do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def edit_json(file: Path, change: Callable[[Any], object]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
