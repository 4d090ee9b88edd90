"""The private side of a training's folder: which training it holds, its resume state, and whether it is finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ml_backend.detector.checkpoint import CARD, replace_file
from ml_backend.detector.errors import ConfigError


class RunFolder:
    """``run.json`` (identity), ``state.pth`` (to resume), ``result.json`` (once finished), ``checkpoint/``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self._identity = path / "run.json"
        self._state = path / "state.pth"
        self._result = path / "result.json"

    def claim(self, identity: Mapping[str, Any], resume: bool) -> None:
        """Make the folder this training's own.

        Args:
            identity: what tells trainings apart, as JSON.
            resume: whether an earlier part of the same training may be continued.

        Raises:
            ConfigError: the folder holds another training, and ``resume`` does not allow to discard it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not resume:
            for file in (self._result, self._state, self._identity):
                file.unlink(missing_ok=True)
            shutil.rmtree(self.checkpoint, ignore_errors=True)
        text = json.dumps(identity, indent=2, sort_keys=True)
        worked = self._state.is_file() or self._result.is_file()
        if worked and self._identity.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{self.path} holds a training with another configuration, dataset or start: "
                "give another output folder, or discard it with resume=False (--no-resume)."
            )
        replace_file(self._identity, text.encode())

    def finished(self) -> dict[str, Any] | None:
        """The result, once the training has ended."""
        if self._result.is_file() and (self.checkpoint / CARD).is_file():
            result: dict[str, Any] = json.loads(self._result.read_text(encoding="utf-8"))
            return result
        return None

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the resume state so that a crash leaves the old or the new one."""
        temporary = self._state.with_suffix(".tmp")
        torch.save(dict(state), temporary)
        temporary.replace(self._state)

    def load_state(self) -> dict[str, Any] | None:
        """The resume state, on the CPU, or None; only tensors and plain data are accepted, nothing is executed."""
        if not self._state.is_file():
            return None
        state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        return state

    def finish(self, result: Mapping[str, Any]) -> None:
        """Record the result and drop the resume state, which is of no use any more."""
        replace_file(self._result, json.dumps(result, indent=2).encode())
        self._state.unlink(missing_ok=True)
